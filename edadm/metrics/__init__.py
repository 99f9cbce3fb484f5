"""Features of images, references for them, and their evaluation; torch-fidelity does the work."""
