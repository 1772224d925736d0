"""The daemon with a wall clock that is wrong by CLOCK_STEP_VARIABLE seconds.

Leases, deadlines and backoff use the database's clock. Only the tokens use the daemon's, and
operators refuse them.
"""

import os
import runpy
import time

CLOCK_STEP_VARIABLE = "PREDICTU_DISPATCH_CLOCK_STEP_S"


def main() -> None:
    step_s = float(os.environ[CLOCK_STEP_VARIABLE])
    right = time.time
    time.time = lambda: right() + step_s
    runpy.run_module("predictu_dispatch", run_name="__main__")


if __name__ == "__main__":
    main()
