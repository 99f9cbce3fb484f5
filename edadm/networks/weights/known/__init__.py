"""What files of weights are: by the names and shapes of their tensors."""
