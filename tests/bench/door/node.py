"""A node whose engine is the bench's: `python -m tests.bench.door.node ENGINE-FLAGS -- NODE-FLAGS`."""

import sys

from node import supervise
from node.cli.main import main

if __name__ == "__main__":
    cut = sys.argv.index("--")
    supervise.ENGINE = ("tests.bench.door.engine", *sys.argv[1:cut])
    sys.exit(main(sys.argv[cut + 1 :]))
