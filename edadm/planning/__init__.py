"""What a configuration will cost, before anything runs: exact counts, and times estimated from a short probe of the machine."""
