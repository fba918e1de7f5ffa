"""``python -m polypref``: the command, for when the script is not on the path."""

import sys

from polypref.cli import main

if __name__ == "__main__":
    sys.exit(main())
