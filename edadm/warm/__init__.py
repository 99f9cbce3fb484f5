"""Jobs on this machine start as forks of a process that has imported what they need (docs/workflow.md)."""

SOCKET = "EDADM_WARM_SOCKET"  # the variable with the place where the server listens, set by the workflow
SETTING = "EDADM_WARM"  # 0: every job starts by itself
