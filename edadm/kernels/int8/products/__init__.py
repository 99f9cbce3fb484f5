"""Products of int8 numbers on a GPU: convolutions, linear layers and feed-forward layers."""
