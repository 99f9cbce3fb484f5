"""Networks whose features are compared, each as one of torch-fidelity's extractors."""
