"""Results of an earlier version that are taken over where they mean the same today."""
