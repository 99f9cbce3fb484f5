"""What can be said of networks without building them: their settings, and the names that follow; imports no torch."""
