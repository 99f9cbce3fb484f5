"""Times and bytes, measured here and now, as ratios within one run."""
