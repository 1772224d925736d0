"""`python -m reference_operator`, from wherever the folder was copied to."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
