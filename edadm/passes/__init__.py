"""What is done to a network site by site and unit by unit: ranges, reconstruction."""
