"""Enqueue bets as producers do, and check that each was delivered exactly once."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import asyncpg

from predictu_dispatch.core.settings import DAY_S
from predictu_dispatch.edge.config.keys import create_key_file
from tests.bench.backlog import Connection
from tests.bench.meter import BrokenRoundError
from tests.support.daemons import _toml as toml
from tests.support.daemons import until

OPERATORS = tuple(f"op_work_{number}" for number in range(4))
SLOTS = 64
"""Slots in each lane of each operator; the defaults are 32 and 16."""
CALLBACKS_PER_BET = 3
_BETS_AT_ONCE = 500
_DONE_TIMEOUT_S = 60.0

# For each bet: BALANCE, BET_MAKE and one terminal, many bets in one transaction.
_PLAY_BETS = """
    select predictu_dispatch.enqueue_callback(o.id, 'BALANCE',
               jsonb_build_object('player_id', 'p-' || n, 'currency', 'EUR')),
           predictu_dispatch.enqueue_callback(o.id, 'BET_MAKE',
               jsonb_build_object('player_id', 'p-' || n, 'currency', 'EUR', 'amount', 500, 'bet_id', $2 || n,
                   'bet', jsonb_build_object('market_id', 'm-7', 'outcome', 'yes', 'odds', 1.85, 'shares', 10,
                                             'price', 0.54))),
           predictu_dispatch.enqueue_callback(o.id, (array['BET_WIN', 'BET_LOSE', 'BET_SELL'])[n % 3 + 1],
               -- BET_LOSE has no amount.
               jsonb_strip_nulls(jsonb_build_object('player_id', 'p-' || n, 'currency', 'EUR', 'bet_id', $2 || n,
                                                    'amount', case when n % 3 <> 1 then 900 end)))
      from generate_series($3::integer, $4::integer) n
     cross join lateral (select ($1::text[])[n % cardinality($1::text[]) + 1] as id) o
"""
_UNFINISHED = """
    select exists (select from predictu_dispatch.callback
                    where operator_id = any($1) and state in ('waiting', 'ready', 'in_flight'))
"""
_DONE = """
    select (select count(*) from predictu_dispatch.callback
             where operator_id = any($1) and method <> 'PING' and created_at > $2 and state = 'delivered') as delivered,
           (select count(*) from predictu_dispatch.bet
             where operator_id = any($1) and created_at > $2 and state = 'closed') as closed,
           count(*) as audited, count(distinct (operator_id, request_id)) as audited_once
      from predictu_dispatch.attempt
     where operator_id = any($1) and method <> 'PING' and started_at > $2
"""
_RETRIED = """
    select reason, count(*) from predictu_dispatch.attempt
     where operator_id = any($1) and method <> 'PING' and started_at > $2 and verdict <> 'delivered' group by reason
"""


async def enqueue_bets(owner: Connection, bets: int, *, prefix: str, operators: Iterable[str] = OPERATORS) -> None:
    """Enqueue `count` bets with three callbacks each; `prefix` starts their ids."""
    for first in range(1, bets + 1, _BETS_AT_ONCE):
        last = min(bets, first + _BETS_AT_ONCE - 1)
        await owner.execute(_PLAY_BETS, list(operators), prefix, first, last)


async def check_done(
    owner: Connection, bets: int, *, since: Any = None, operators: Iterable[str] = OPERATORS
) -> Mapping[str, int]:
    """Check the bets made after `since`; raises BrokenRoundError unless all were delivered once."""
    whose = list(operators)

    async def nothing_is_left() -> bool:
        return not await owner.fetchval(_UNFINISHED, whose)

    try:
        await until("every callback is final", nothing_is_left, within_s=_DONE_TIMEOUT_S)
    except AssertionError as error:
        raise BrokenRoundError(str(error)) from error
    since_at = since or await owner.fetchval("select '-infinity'::timestamptz")
    row: asyncpg.Record | None = await owner.fetchrow(_DONE, whose, since_at)
    assert row is not None
    callbacks = bets * CALLBACKS_PER_BET
    wanted = {"delivered": callbacks, "closed": bets, "audited": callbacks, "audited_once": callbacks}
    if dict(row) != wanted:
        retried = {row[0]: row[1] for row in await owner.fetch(_RETRIED, whose, since_at)}
        raise BrokenRoundError(f"the database has {dict(row)} instead of {wanted}; retried for {retried}")
    return wanted


def write_operators(
    folder: Path, urls: Mapping[str, str], *, algorithm: str = "EdDSA", **sections: Mapping[str, Any]
) -> Path:
    """Write a file for each operator; `sections` override the default settings."""
    (folder / "operators").mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        # Callbacks must not expire while other contenders run.
        "interactive": {"deadline_s": DAY_S, "max_in_flight": SLOTS},
        "settlement": {"max_in_flight": SLOTS},
    }
    for name, section in sections.items():
        settings[name] = {**settings.get(name, {}), **section}
    for operator_id, url in urls.items():
        key = folder / f"{operator_id}_{algorithm}.pem"
        if not key.exists():
            create_key_file(key, "RS256" if algorithm == "RS256" else "EdDSA")
        (folder / "operators" / f"{operator_id}.toml").write_text(
            toml(
                {
                    "operator_id": operator_id,
                    "callback_url": url,
                    "allow_insecure_http": url.startswith("http://"),
                    "allow_private_addresses": True,
                    "signing": {"key_file": f"../{key.name}", "algorithm": algorithm},
                    **settings,
                }
            ),
            encoding="utf-8",
        )
    return folder
