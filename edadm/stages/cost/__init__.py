"""What a stage costs: counts of its work, and of the networks that do it, for `edadm.planning`."""
