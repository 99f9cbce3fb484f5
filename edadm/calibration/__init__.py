"""Which (x_t, t) the quantizers see; needs no network."""
