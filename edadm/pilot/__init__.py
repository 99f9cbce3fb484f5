"""A small part of each published run at full size, beside its plan."""
