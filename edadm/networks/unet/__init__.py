"""U-Nets with skips: how they are built, and where their decoders concatenate."""
