"""`python -m node.engine`: see `node.engine.process`."""

import sys

from node.engine.process import main

if __name__ == "__main__":
    sys.exit(main())
