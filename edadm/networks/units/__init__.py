"""Units and sites of a network, and the forward pass that finds them."""
