"""Results of a run as the report takes them: records, and how they are read."""
