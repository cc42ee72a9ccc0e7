"""``python -m slimface`` is ``slimface``."""

from slimface.cli.app import main

if __name__ == "__main__":
    main()
