"""Serve: a detector behind HTTP. Picture in, faces out, and limits on everything."""
