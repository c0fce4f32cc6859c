"""`python -m wys`: the same as `wys`."""

import sys

from wys.apps.cli import main

if __name__ == "__main__":
    sys.exit(main())
