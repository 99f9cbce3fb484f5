"""Images that are scored: folders and archives of them, how they are read, and what made them."""
