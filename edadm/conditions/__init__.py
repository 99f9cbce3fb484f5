"""What a network is told about image i."""
