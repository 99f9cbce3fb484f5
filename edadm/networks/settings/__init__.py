"""What can be said of networks without building them: settings, and names that follow; imports no torch."""
