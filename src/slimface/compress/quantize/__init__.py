"""Quantize: eight bits that a public runtime really computes with."""
