"""What stages are given: files with their digests, networks, conditions, and the task of a reconstruction."""
