"""Learning ranges, rounding and step sizes, unit by unit."""
