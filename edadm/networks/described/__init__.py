"""What checkpoints say of themselves, against the preset that they are read with, and as a preset of their own."""
