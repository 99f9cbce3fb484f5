"""What U-Nets are made of: blocks, concatenated inputs, and norms with the layers that they feed."""
