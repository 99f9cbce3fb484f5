"""Where weights come from and what a U-Net is made of."""
