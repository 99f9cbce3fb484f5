"""Jobs on this machine start as forks of a process that has imported what they need (docs/workflow.md)."""
