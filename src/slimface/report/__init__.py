"""What we tell people: a run as one self-contained page."""
