"""From noise to images; knows nothing of quantization."""
