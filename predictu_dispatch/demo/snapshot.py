"""What the live view shows of one moment, as the support desk may read it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

BET_STATES: Final = ("placing", "open", "closing", "closed", "void")

_CALLBACKS: Final = """
    select operator_id, count(*) filter (where state in ('waiting', 'ready')) as backlog,
           count(*) filter (where state = 'in_flight') as in_flight,
           count(*) filter (where state = 'delivered') as delivered,
           coalesce(sum(greatest(attempts - 1, 0)), 0)::bigint as retries,
           count(*) filter (where review_since is not null) as needs_review
      from predictu_dispatch.callback group by operator_id
"""
_BETS: Final = "select operator_id, state, count(*) as bets from predictu_dispatch.bet group by operator_id, state"
_UNFINISHED: Final = """
    select (select count(*) from predictu_dispatch.bet where state not in ('closed', 'void'))
         + (select count(*) from predictu_dispatch.callback
             where state in ('waiting', 'ready', 'in_flight') and method <> 'PING')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFigures:
    """One operator's row; `wallet` is the sum of its players' balances in subunits."""

    bets: Counter[str] = field(default_factory=Counter)
    backlog: int = 0
    in_flight: int = 0
    retries: int = 0
    delivered: int = 0
    needs_review: int = 0
    wallet: int = 0


async def take_snapshot(
    support: asyncpg.Connection[asyncpg.Record], wallets: Mapping[str, Path]
) -> dict[str, OperatorFigures]:
    """Figures by operator; a wallet can be read while its operator is down."""
    counts = {row["operator_id"]: dict(row) for row in await support.fetch(_CALLBACKS)}
    bets: dict[str, Counter[str]] = {operator_id: Counter() for operator_id in wallets}
    for row in await support.fetch(_BETS):
        bets[row["operator_id"]][row["state"]] = row["bets"]
    figures = {}
    for operator_id, wallet in wallets.items():
        total = await asyncio.to_thread(_wallet_total, wallet)
        counted = counts.get(operator_id, {})
        counted.pop("operator_id", None)
        figures[operator_id] = OperatorFigures(bets=bets[operator_id], wallet=total, **counted)
    return figures


async def unfinished(support: asyncpg.Connection[asyncpg.Record]) -> int:
    """How many bets and callbacks are not at their end; health checks never count, since they never end."""
    count: int = await support.fetchval(_UNFINISHED)
    return count


def _wallet_total(wallet: Path) -> int:
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True)) as sql:
        total: int = sql.execute("select coalesce(sum(balance), 0) from players").fetchone()[0]
        return total
