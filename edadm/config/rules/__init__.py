"""Rules of a configuration beside each setting's range: names, sizes, patterns, places; no torch."""
