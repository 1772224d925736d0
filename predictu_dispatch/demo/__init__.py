"""The demo: a real database, three operators and the daemon, every path of a bet's life, and the check of the books."""

from predictu_dispatch.demo.runner import Options, run_demo

__all__ = ["Options", "run_demo"]
