"""How a detector runs: NumPy, a runtime, pictures; no torch."""
