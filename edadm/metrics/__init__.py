"""Features, statistics and scores; torch-fidelity does the work."""
