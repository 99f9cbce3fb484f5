"""What lies between convolutions of a float network, in fp32 on a GPU."""
