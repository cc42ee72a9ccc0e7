"""Open any model: a name of the zoo, a checkpoint, or an exported file."""
