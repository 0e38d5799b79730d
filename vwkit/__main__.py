"""``python -m vwkit``."""

from vwkit.cli import main

if __name__ == "__main__":
    main()
