"""The ordinary traffic: bets of each common kind, in a fixed rotation, so that every kind occurs.

Only confirmed bets go on to their end; the database voids or rolls back all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from predictu_dispatch.demo.fixtures import OPERATORS, PLAYERS, POOR, UNKNOWN
from predictu_dispatch.demo.process import DemoError
from predictu_dispatch.demo.producer import Bet, Producer

Kind = Callable[[Producer, str], Awaitable[None]]

_TRAFFIC_S_MAX: Final = 22.0
"""A little longer than the scenarios, so that ordinary bets are under way in each of them."""
_PAUSE_S_MAX: Final = 0.25
"""Between two bets, so that a small demo is short."""


async def place(producer: Producer, operator_id: str, player_id: str | None = None) -> Bet | None:
    """Place a bet and wait; None if the placement was not confirmed."""
    bet = producer.new_bet(operator_id, player_id)
    await producer.enqueue(bet, "BET_MAKE")
    return bet if await producer.wait_final(operator_id, bet.placement_id) == "delivered" else None


async def end(producer: Producer, bet: Bet, method: str) -> None:
    """Enqueue the terminal and wait until it is final."""
    await producer.wait_final(bet.operator_id, await producer.enqueue(bet, method))


def _ended_by(method: str) -> Kind:
    async def play(producer: Producer, operator_id: str) -> None:
        if bet := await place(producer, operator_id):
            await end(producer, bet, method)

    return play


async def _failed_trade(producer: Producer, operator_id: str) -> None:
    """The debit is confirmed and the trade fails downstream; two services call rollback_bet()."""
    bet = await place(producer, operator_id)
    if bet is None:
        return
    rollback_id, again = await producer.rollback(bet), await producer.rollback(bet)
    if rollback_id is None or again != rollback_id:
        raise DemoError(f"{bet.bet_id}: rollback_bet() returned {rollback_id}, and {again} the second time")
    producer.observed["rollback_bet() again: the same rollback"] += 1
    await producer.wait_final(operator_id, rollback_id)


def _terminal_at_once(player_id: str | None) -> Kind:
    """The terminal is enqueued together with the placement and waits for it."""

    async def play(producer: Producer, operator_id: str) -> None:
        bet = producer.new_bet(operator_id, player_id)
        async with producer.transaction() as transaction:
            await transaction.enqueue(bet, "BET_MAKE")
            terminal_id = await transaction.enqueue(bet, "BET_LOSE" if player_id else "BET_WIN")
        await producer.wait_final(operator_id, terminal_id)

    return play


def _rejected(player_id: str) -> Kind:
    async def play(producer: Producer, operator_id: str) -> None:
        if bet := await place(producer, operator_id, player_id):
            raise DemoError(f"{bet.bet_id} of {player_id} was confirmed and must be rejected")

    return play


async def _refused_requests(producer: Producer, operator_id: str) -> None:
    """A faulty service asks for what a bet's state forbids."""
    bet = await place(producer, operator_id)
    if bet is None:
        return
    async with producer.transaction() as transaction:
        win_id = await transaction.enqueue(bet, "BET_WIN")
        if await transaction.enqueue(bet, "BET_WIN", request_id=win_id) == win_id:
            producer.observed["the same request again: returned quietly"] += 1
        async with transaction.refused("terminal for a closing bet: refused"):
            await transaction.enqueue(bet, "BET_REFUND")
        async with transaction.refused("rollback_bet() after another terminal: refused"):
            await transaction.rollback(bet)
    await producer.wait_final(operator_id, win_id)
    unknown = producer.new_bet(operator_id)
    async with producer.transaction() as transaction:
        async with transaction.refused("terminal for a closed bet: refused"):
            await transaction.enqueue(bet, "BET_SELL")
        async with transaction.refused("terminal for an unknown bet: refused"):
            await transaction.enqueue(unknown, "BET_LOSE")
        async with transaction.refused("rollback_bet() for an unknown bet: refused"):
            await transaction.rollback(unknown)


async def _rolled_back_at_once(producer: Producer, operator_id: str) -> None:
    """The trade fails in the transaction that places the bet: nothing is sent."""
    bet = producer.new_bet(operator_id)
    async with producer.transaction() as transaction:
        await transaction.enqueue(bet, "BET_MAKE")
        await transaction.enqueue(bet, "BET_WIN")
        if await transaction.rollback(bet) is None and await transaction.rollback(bet) is None:
            producer.observed["rollback_bet() on a void bet: NULL"] += 1
        async with transaction.refused("terminal for a void bet: refused"):
            await transaction.enqueue(bet, "BET_LOSE")


_KINDS: Final[tuple[Kind, ...]] = (
    _ended_by("BET_WIN"),
    _refused_requests,
    _failed_trade,
    _rejected(POOR),
    _ended_by("BET_LOSE"),
    _terminal_at_once(None),
    _ended_by("BET_SELL"),
    _rejected(UNKNOWN),
    _rolled_back_at_once,
    _terminal_at_once(POOR),
    _ended_by("BET_REFUND"),
)
"""Played at each operator in turn, beginning with the good one, at which every kind succeeds."""


async def play_traffic(producer: Producer, bets: int) -> None:
    """Play this number of ordinary bets, started at a steady rate."""
    pause_s = min(_PAUSE_S_MAX, _TRAFFIC_S_MAX / bets)

    async def play_after(delay_s: float, kind: Kind, operator_id: str) -> None:
        await asyncio.sleep(delay_s)
        await kind(producer, operator_id)

    async with asyncio.TaskGroup() as tasks:
        for number in range(bets):
            kind = _KINDS[number % len(_KINDS)]
            operator_id = OPERATORS[number // len(_KINDS) % len(OPERATORS)].operator_id
            tasks.create_task(play_after(number * pause_s, kind, operator_id), name=f"bet {number}")


async def ask_balances(producer: Producer) -> None:
    """Ask for every player's balance by a BALANCE callback, and wait for the answers."""
    requests = [
        (fixture.operator_id, await producer.balance(fixture.operator_id, player_id))
        for fixture in OPERATORS
        for player_id in PLAYERS
    ]
    await asyncio.gather(*(producer.wait_final(*request) for request in requests))
