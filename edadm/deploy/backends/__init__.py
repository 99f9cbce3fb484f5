"""Networks that compute with integers, a file per kind of arithmetic."""
