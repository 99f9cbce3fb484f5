"""What users write or collect."""
