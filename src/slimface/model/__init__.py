"""What a detector is."""
