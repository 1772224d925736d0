"""The ordinary traffic: bets of every common kind, dealt out by their number, so that each kind surely occurs.

Whatever an operator does, the platform acts on the outcome alone: a confirmed bet goes on to its end; for one that was
refused or given up nothing is left to do, because the database has made it void or is rolling it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from predictu_dispatch.demo.cast import POOR, RICH, ROLES, STRANGER
from predictu_dispatch.demo.child import DemoError
from predictu_dispatch.demo.platform import Bet, Platform

Kind = Callable[[Platform, str], Awaitable[None]]

_TRAFFIC_S_MAX: Final = 22.0
"""A little longer than the acts of trouble take, so that ordinary bets are under way in each of them."""
_PAUSE_S_MAX: Final = 0.25
"""Between two bets: a small demo need not last as long as a large one."""


async def end(platform: Platform, bet: Bet, method: str) -> None:
    """The terminal is delivered; a payout's amount is the shares that won, or what the position sold for."""
    payout = {"BET_WIN": 2 * bet.amount, "BET_SELL": bet.amount // 2}.get(method)
    async with platform.transaction() as transaction:
        request_id = await transaction.enqueue(bet, method, amount=payout)
    await platform.settled(bet.operator_id, request_id)


def _ended_by(method: str) -> Kind:
    async def play(platform: Platform, operator_id: str) -> None:
        bet = await placed(platform, operator_id)
        if bet is not None:
            await end(platform, bet, method)

    return play


async def placed(platform: Platform, operator_id: str, player_id: str | None = None) -> Bet | None:
    """A bet whose placement was confirmed; None where it was not."""
    bet = platform.new_bet(operator_id, player_id or platform.draws.choice(RICH))
    async with platform.transaction() as transaction:
        await transaction.place(bet)
    seen = await platform.settled(operator_id, bet.placement_id)
    return bet if seen.state == "delivered" else None


async def _asks_balance_first(platform: Platform, operator_id: str) -> None:
    async with platform.transaction() as transaction:
        request_id = await transaction.balance(operator_id, platform.draws.choice(RICH))
    await platform.settled(operator_id, request_id)
    await _ended_by("BET_WIN")(platform, operator_id)


async def _trade_fails(platform: Platform, operator_id: str) -> None:
    """The debit is confirmed and the trade downstream fails; a second service notices it too."""
    bet = await placed(platform, operator_id)
    if bet is None:
        return
    async with platform.transaction() as transaction:
        rollback_id = await transaction.rollback(bet)
    async with platform.transaction() as transaction:
        again = await transaction.rollback(bet)
    if rollback_id is None or again != rollback_id:
        raise DemoError(f"{bet.bet_id}: rollback_bet() gave {rollback_id}, and {again} the second time")
    platform.witnessed["rollback_bet() again: the same rollback"] += 1
    await platform.settled(operator_id, rollback_id)


def _ended_early(player_id: str | None) -> Kind:
    """The result is known before the placement is confirmed: the terminal waits for it."""

    async def play(platform: Platform, operator_id: str) -> None:
        bet = platform.new_bet(operator_id, player_id or platform.draws.choice(RICH))
        async with platform.transaction() as transaction:
            await transaction.place(bet)
            terminal_id = await transaction.enqueue(bet, "BET_LOSE" if player_id else "BET_WIN")
        await platform.settled(operator_id, terminal_id)

    return play


def _refused(player_id: str) -> Kind:
    async def play(platform: Platform, operator_id: str) -> None:
        bet = await placed(platform, operator_id, player_id)
        if bet is not None:
            raise DemoError(f"{bet.bet_id} of {player_id} was placed, and must not have been")

    return play


async def _contradicts_itself(platform: Platform, operator_id: str) -> None:
    """A confused service asks for what a bet's state forbids, at every turn."""
    bet = await placed(platform, operator_id)
    if bet is None:
        return
    async with platform.transaction() as transaction:
        win_id = await transaction.enqueue(bet, "BET_WIN", amount=bet.amount)
        if await transaction.enqueue(bet, "BET_WIN", amount=bet.amount, request_id=win_id) == win_id:
            platform.witnessed["the same request again: returned quietly"] += 1
        async with transaction.refused("terminal for a closing bet: refused"):
            await transaction.enqueue(bet, "BET_REFUND")
        async with transaction.refused("rollback_bet() after another terminal: refused"):
            await transaction.rollback(bet)
    await platform.settled(operator_id, win_id)
    stranger = platform.new_bet(operator_id, RICH[0])
    async with platform.transaction() as transaction:
        async with transaction.refused("terminal for a closed bet: refused"):
            await transaction.enqueue(bet, "BET_SELL")
        async with transaction.refused("terminal for an unknown bet: refused"):
            await transaction.enqueue(stranger, "BET_LOSE")
        async with transaction.refused("rollback_bet() for an unknown bet: refused"):
            await transaction.rollback(stranger)


async def _taken_back_at_once(platform: Platform, operator_id: str) -> None:
    """The trade fails in the very transaction that placed the bet, with its result waiting: nothing is ever sent."""
    bet = platform.new_bet(operator_id, RICH[0])
    async with platform.transaction() as transaction:
        await transaction.place(bet)
        await transaction.enqueue(bet, "BET_WIN")
        if await transaction.rollback(bet) is None and await transaction.rollback(bet) is None:
            platform.witnessed["rollback_bet() on a void bet: NULL"] += 1
        async with transaction.refused("terminal for a void bet: refused"):
            await transaction.enqueue(bet, "BET_LOSE")


KINDS: Final[tuple[Kind, ...]] = (
    _ended_by("BET_WIN"),
    _contradicts_itself,
    _trade_fails,
    _refused(POOR),
    _ended_by("BET_LOSE"),
    _ended_early(None),
    _ended_by("BET_SELL"),
    _refused(STRANGER),
    _taken_back_at_once,
    _ended_early(POOR),
    _ended_by("BET_REFUND"),
    _asks_balance_first,
)
"""Played at every operator in turn, beginning with the good one, where what each is meant to show surely happens."""


async def play_traffic(platform: Platform, bets: int) -> None:
    """So many ordinary bets are over, evenly begun."""
    pause_s = min(_PAUSE_S_MAX, _TRAFFIC_S_MAX / bets)
    async with asyncio.TaskGroup() as tasks:
        for number in range(bets):
            kind = KINDS[number % len(KINDS)]
            operator_id = ROLES[number // len(KINDS) % len(ROLES)].operator_id
            tasks.create_task(_begun_after(number * pause_s, kind, platform, operator_id), name=f"bet {number}")


async def _begun_after(delay_s: float, kind: Kind, platform: Platform, operator_id: str) -> None:
    await asyncio.sleep(delay_s)
    await kind(platform, operator_id)


async def ask_balances(platform: Platform) -> None:
    """Every player's balance was asked for by the ordinary way, and told."""
    async with platform.transaction() as transaction:
        asked = [
            (role.operator_id, await transaction.balance(role.operator_id, player_id))
            for role in ROLES
            for player_id in role.players
        ]
    await asyncio.gather(*(platform.settled(*request) for request in asked))
