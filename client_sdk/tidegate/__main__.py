"""``python -m tidegate``: publish and follow topics from a shell."""

import sys

from tidegate.command import main

if __name__ == "__main__":
    sys.exit(main())
