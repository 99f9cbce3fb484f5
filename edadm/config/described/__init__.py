"""What files say of the networks in them, as settings of this package; reads JSON and YAML, and imports no torch."""
