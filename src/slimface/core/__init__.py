"""The vocabulary: values and pure functions on NumPy arrays; no torch, no files."""
