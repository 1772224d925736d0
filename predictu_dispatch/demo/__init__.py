"""The demo: a database, three operators and the daemon play bets, then the books are checked."""

from predictu_dispatch.demo.runner import Options, run_demo

__all__ = ["Options", "run_demo"]
