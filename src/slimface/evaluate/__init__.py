"""How well a detector does."""
