"""Tables of the report: scores, smaller tables, sentences about them, and files for other programs."""
