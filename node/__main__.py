"""`python -m node`: the same as the installed command `inferno`."""

import sys

from node.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
