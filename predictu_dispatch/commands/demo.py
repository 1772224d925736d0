"""`demo`: everything at work on this machine, with the proof that no cent went astray."""

from __future__ import annotations

import secrets
import sys
from typing import Final

import click

_BETS: Final = 300
_BETS_MIN: Final = 40
"""Room for one bet of every kind and some ordinary traffic; below 33 a path could not occur."""
_BETS_MAX: Final = 20_000
"""At that number the traffic of half a minute is more than one machine plays in its time."""
_SEED_BITS: Final = 31


@click.command()
@click.option("--bets", type=click.IntRange(_BETS_MIN, _BETS_MAX), default=_BETS, show_default=True, help="How many.")
@click.option("--seed", type=int, help="Draw the same as an earlier demo. Default: drawn, and printed.")
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and say how to look inside.")
@click.option("--json", "as_json", is_flag=True, help="Print the final summary as JSON; all else goes to stderr.")
def demo(bets: int, seed: int | None, *, keep: bool, as_json: bool) -> None:
    """Show everything at work, and prove that wallets, bets and audit agree to the cent; exit 1 if they do not.

    Postgres, three operators and the daemon are started on this machine and stopped at the end; nothing else is
    touched.
    """
    from predictu_dispatch.demo import Options, run_demo  # noqa: PLC0415 - loaded only where used

    seed = secrets.randbits(_SEED_BITS) if seed is None else seed
    sys.exit(run_demo(Options(bets=bets, seed=seed, keep=keep, as_json=as_json)))
