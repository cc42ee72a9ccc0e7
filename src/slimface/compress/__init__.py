"""How a detector shrinks."""
