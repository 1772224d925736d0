"""The figures of a running demo: what the screen shows, and how long it will still take."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, Self

import asyncpg
from typing_extensions import override

from predictu_dispatch.demo.environment import Environment

_PLAYING_S: Final = 24.0
"""The scenarios take this long, whatever the number of bets; the traffic runs beside them."""
_BETS_PER_S: Final = 60.0
"""A larger demo plays at least this many bets in a second."""

_CALLBACKS: Final = """
    select operator_id, count(*) filter (where state in ('waiting', 'ready')) as backlog,
           count(*) filter (where state = 'in_flight') as in_flight,
           coalesce(sum(greatest(attempts - 1, 0)), 0)::bigint as retries,
           count(*) filter (where state = 'delivered') as delivered,
           count(*) filter (where review_since is not null) as needs_review
      from predictu_dispatch.callback group by operator_id
"""
_BETS: Final = "select operator_id, state, count(*) as bets from predictu_dispatch.bet group by operator_id, state"


class Figures(NamedTuple):
    """One operator's column; `wallet` is the sum of its players' balances in subunits."""

    bets: Counter[str]
    wallet: int
    backlog: int = 0
    in_flight: int = 0
    retries: int = 0
    delivered: int = 0
    needs_review: int = 0


class Progress(NamedTuple):
    """How far the demo is; `elapsed_s` counts from the first bet."""

    ended: int
    bets: int
    elapsed_s: float

    @classmethod
    def of(cls, figures: Iterable[Figures], *, bets: int, elapsed_s: float) -> Self:
        ended = sum(row.bets["closed"] + row.bets["void"] for row in figures)
        return cls(ended=min(ended, bets), bets=bets, elapsed_s=elapsed_s)

    @property
    def left_s(self) -> float:
        """The time left: at first what a demo usually takes, later what this one took until now."""
        left = 1 - self.ended / self.bets
        return left * (left * playing_s(self.bets) + self.elapsed_s)

    @override
    def __str__(self) -> str:
        if self.ended == self.bets:
            return f"{self.bets} of {self.bets} bets"
        return f"{self.ended} of {self.bets} bets, about {max(1, round(self.left_s))} s left"


def playing_s(bets: int) -> float:
    """How long a demo of this many bets usually takes."""
    return max(_PLAYING_S, bets / _BETS_PER_S)


async def read_figures(environment: Environment, support: asyncpg.Connection[asyncpg.Record]) -> dict[str, Figures]:
    """The figures of each operator."""
    callbacks = {row[0]: row[1:] for row in map(tuple, await support.fetch(_CALLBACKS))}
    bets: dict[str, Counter[str]] = {operator_id: Counter() for operator_id in environment.operators}
    for operator_id, state, count in await support.fetch(_BETS):
        bets[operator_id][state] = count
    return {
        operator_id: Figures(
            bets[operator_id], await asyncio.to_thread(_wallet_sum, operator.wallet), *callbacks.get(operator_id, ())
        )
        for operator_id, operator in environment.operators.items()
    }


def _wallet_sum(wallet: Path) -> int:
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True)) as sql:
        total: int = sql.execute("select coalesce(sum(balance), 0) from players").fetchone()[0]
        return total
