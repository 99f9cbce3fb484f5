"""What a configuration must keep to beside the range of every setting: names, sizes, patterns, places; imports no torch."""
