"""Integer storage and arithmetic."""
