"""Pruning: which channels go, how many, and when."""
