"""The gallery: images of every variant beside full precision's, and where errors and bytes lie."""
