"""The demo: a database, three operators and the daemon for real, every path of a bet's life, and the proof."""

from predictu_dispatch.demo.performance import Options, run_demo

__all__ = ["Options", "run_demo"]
