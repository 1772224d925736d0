"""The loopback-only side door of a test operator: create players, change faults while it runs, read the ledger."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from .callback import is_text
from .database import WalletError
from .faults import Fault, FaultError, check_rates
from .ledger import read_ledger
from .money import SUBUNITS_MAX
from .settings import Settings
from .wallet import NewPlayer, Wallet
from .writer import Writer


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """The three routes. Money is in subunits here, whatever the format on the wire is."""

    settings: Settings
    wallet: Wallet
    writer: Writer

    def application(self) -> web.Application:
        """The routes, ready to be served."""
        application = web.Application(middlewares=[_faults_as_json])
        application.router.add_get("/_admin/ledger", self.ledger)
        application.router.add_post("/_admin/faults", self.faults)
        application.router.add_post("/_admin/players", self.players)
        return application

    async def ledger(self, _request: web.Request) -> web.Response:
        """Balances, bets and counters of one moment, read beside the running wallet."""
        ledger = await asyncio.to_thread(read_ledger, self.settings.database)
        return web.json_response({"operator_id": self.settings.operator_id, **ledger})

    async def faults(self, request: web.Request) -> web.Response:
        """These rates hold from now on and no others: `{"reset":0.05}`; `stall_s` and `seed` may stand beside them."""
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
        """The players exist, all or none: one object `{"player_id":…,"currency":…,"balance":…}` or a list of them."""
        wanted = await _json(request)
        players = [_new_player(member) for member in (wanted if isinstance(wanted, list) else [wanted])]
        create = functools.partial(self.wallet.create_players, players)
        created = await self.writer.write(create)
        return web.json_response({"created": created}, status=201)


@web.middleware
async def _faults_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except WalletError as fault:
        return web.json_response({"status": "CONFLICT", "message": str(fault)}, status=409)
    except ValueError as fault:
        return web.json_response({"status": "BAD_REQUEST", "message": str(fault)}, status=400)


async def _json(request: web.Request) -> object:
    # A page in a browser on this host can send other content types here without asking, but not this one.
    if request.content_type != "application/json":
        raise ValueError(f"Content-Type is {request.content_type}; it must be application/json")
    parsed: object = json.loads(await request.text())
    return parsed


def _new_player(member: object) -> NewPlayer:
    if not isinstance(member, dict) or set(member) != {"player_id", "currency", "balance"}:
        raise ValueError("a player is an object of exactly player_id, currency, balance")
    player_id, currency, balance = member["player_id"], member["currency"], member["balance"]
    if not (is_text(player_id) and is_text(currency)):
        raise ValueError("player_id and currency must be texts of 1 to 200 characters")
    if isinstance(balance, bool) or not isinstance(balance, int) or not 0 <= balance <= SUBUNITS_MAX:
        raise ValueError(f"balance is {balance}; it must be whole subunits between 0 and {SUBUNITS_MAX}")
    return NewPlayer(player_id=player_id, currency=currency, balance=balance)
