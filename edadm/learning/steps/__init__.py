"""The learning steps of one unit: what is learned, from which loss, in which arithmetic, and how often."""
