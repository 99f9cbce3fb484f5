"""Files that a configuration names, packaged, downloaded or users' own, and what they must be."""
