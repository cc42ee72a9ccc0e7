"""What a detector costs."""
