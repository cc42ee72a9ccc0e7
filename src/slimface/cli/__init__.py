"""The command line: thin, every command is one call of the Python API."""
