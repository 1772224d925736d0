"""`python -m predictu_dispatch` is the command `predictu-dispatch`."""

from predictu_dispatch.cli import main

if __name__ == "__main__":
    main()
