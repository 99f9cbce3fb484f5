"""Plans: what a configuration will cost, before anything runs.

Exact counts, and times estimated from a short probe of the machine.
"""
