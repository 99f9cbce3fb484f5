"""The page people read: tables, figures and images, from JSON, CSV and NPY only; needs no torch."""
