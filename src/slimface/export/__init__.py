"""How a detector leaves: one file per format, each checked on decoded boxes."""
