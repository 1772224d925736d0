"""Admin routes on loopback, for tests: create players, change faults, read the ledger."""

from __future__ import annotations

import asyncio
import functools
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from .callback import is_text
from .database import WalletError, Writer
from .faults import Fault, FaultError, check_rates
from .money import SUBUNITS_MAX
from .settings import Address, Settings
from .wallet import NewPlayer, Wallet


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The three routes. Money is always in subunits here."""

    settings: Settings
    wallet: Wallet
    writer: Writer

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_from_this_host, _faults_as_json])
        application.router.add_get("/_admin/ledger", self.ledger)
        application.router.add_post("/_admin/faults", self.faults)
        application.router.add_post("/_admin/players", self.players)
        return application

    async def ledger(self, _request: web.Request) -> web.Response:
        """Returns balances, bets and counters, read while the wallet runs."""
        ledger = await asyncio.to_thread(read_ledger, self.settings.database)
        return web.json_response({"operator_id": self.settings.operator_id, **ledger})

    async def faults(self, request: web.Request) -> web.Response:
        """Replaces all fault rates, such as `{"reset":0.05}`; may add `stall_s` and `seed`."""
        wanted = await _json(request)
        if not isinstance(wanted, dict):
            raise FaultError('not an object like {"reset":0.05,"stall_s":2}')
        stall_s, seed = wanted.pop("stall_s", None), wanted.pop("seed", None)
        if stall_s is not None and (
            isinstance(stall_s, bool) or not isinstance(stall_s, int | float) or not stall_s >= 0
        ):
            raise FaultError(f"stall_s is {stall_s}; it must be a number of seconds, 0 or more")
        if seed is not None and not isinstance(seed, int):
            raise FaultError(f"seed is {seed}; it must be a whole number")
        faults = self.settings.faults
        faults.change(check_rates(wanted), seed=seed, stall_s=stall_s)
        return web.json_response(
            {"rates": {fault: faults.rates.get(fault, 0) for fault in Fault}, "stall_s": faults.stall_s}
        )

    async def players(self, request: web.Request) -> web.Response:
        """Creates all players or none: `{"player_id":…,"currency":…,"balance":…}` or a list."""
        wanted = await _json(request)
        players = [_new_player(member) for member in (wanted if isinstance(wanted, list) else [wanted])]
        create = functools.partial(self.wallet.create_players, players)
        created = await self.writer.write(create)
        return web.json_response({"created": created}, status=201)


@web.middleware
async def _from_this_host(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuses web pages that a browser on this host has open.

    A page may give its own name a loopback address, so that the browser sends it here (DNS
    rebinding); then `Host` has that name. Browsers name the page in `Origin`, other programs do
    not.
    """
    if "Origin" in request.headers:
        return _forbidden("Origin: no web page may use these routes")
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or not _is_loopback(hosts[0]):
        return _forbidden("Host: these routes have a loopback address only, such as 127.0.0.1")
    return await handler(request)


def _is_loopback(host: str) -> bool:
    name, colon, port = host.rpartition(":")
    if not (colon and port.isascii() and port.isdigit()):
        name = host
    return Address(host=name.removeprefix("[").removesuffix("]").lower(), port=0).is_loopback


def _forbidden(message: str) -> web.Response:
    return web.json_response({"status": "FORBIDDEN", "message": message}, status=403)


@web.middleware
async def _faults_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except WalletError as fault:
        return web.json_response({"status": "CONFLICT", "message": str(fault)}, status=409)
    except (ValueError, RecursionError) as fault:
        return web.json_response({"status": "BAD_REQUEST", "message": str(fault)}, status=400)


async def _json(request: web.Request) -> object:
    # A web page in a browser on this host can send other content types here, but not this one.
    if request.content_type != "application/json":
        raise ValueError(f"Content-Type is {request.content_type}; it must be application/json")
    parsed: object = json.loads(await request.text())
    return parsed


def _new_player(member: object) -> NewPlayer:
    if not isinstance(member, dict) or set(member) != {"player_id", "currency", "balance"}:
        raise ValueError("a player is an object of exactly player_id, currency, balance")
    player_id, currency, balance = member["player_id"], member["currency"], member["balance"]
    if not (is_text(player_id) and is_text(currency)):
        raise ValueError("player_id and currency must be strings of 1 to 200 characters")
    if isinstance(balance, bool) or not isinstance(balance, int) or not 0 <= balance <= SUBUNITS_MAX:
        raise ValueError(f"balance is {balance}; it must be whole subunits between 0 and {SUBUNITS_MAX}")
    return NewPlayer(player_id=player_id, currency=currency, balance=balance)


def read_ledger(file: Path) -> dict[str, object]:
    """Returns a consistent copy of balances, bets and counters; money in subunits.

    `balanced` is true if every balance is the sum of its transactions. A bet's `net` is its effect
    on the player's balance so far.
    """
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as sql:
        sql.row_factory = sqlite3.Row
        # One transaction, so that all statements read the same state.
        sql.execute("begin")
        return {
            "balanced": not _rows(sql, _UNBALANCED),
            "balances": _rows(sql, "select player_id, currency, balance from players order by player_id, currency"),
            "bets": _rows(sql, _BETS),
            "transactions": sql.execute("select count(*) from transactions").fetchone()[0],
            "callbacks": _counts(sql, _OUTCOMES),
            "statuses": _counts(
                sql, "select status, count(*) from callback_record where status is not null group by status"
            ),
            "faults": _counts(
                sql, "select fault, count(*) from callback_record where fault is not null group by fault"
            ),
        }


_UNBALANCED = """
    select p.player_id from players p left join transactions t using (player_id, currency)
     group by p.player_id, p.currency having p.balance <> coalesce(sum(t.amount), 0) limit 1
"""

_OUTCOMES = """
    select outcome, count(*) from (
        select outcome from callback_record
        union all select case http_status when 401 then 'unauthorized' else 'bad_request' end from unverified_arrivals
    ) group by outcome
"""

_BETS = """
    select b.bet_id, b.player_id, b.currency, b.amount, b.state, b.debit_request_id, b.ended_by,
           coalesce(sum(t.amount), 0) as net
      from bets b left join transactions t using (bet_id) group by b.bet_id order by b.bet_id
"""


def _rows(sql: sqlite3.Connection, statement: str) -> list[dict[str, object]]:
    return [dict(row) for row in sql.execute(statement)]


def _counts(sql: sqlite3.Connection, statement: str) -> dict[str, int]:
    return {row[0]: row[1] for row in sql.execute(statement)}
