"""Undoes what a run did to its players' money: rolls back open bets and compensates ended ones.

What is to do follows from the journal alone, and every request of it has a name of its own, so a
reversal that was killed is continued by the next one and nothing is done twice:

1. requests of unknown outcome are repeated until the answer is definite
2. placements without a confirmed end are rolled back; where that is refused, ends whose answer had
   an undeclared status are repeated once
3. the confirmed net effect of the ended bets is compensated by one more bet for each player
4. the balances are read; what is left was booked wrongly by the operator

A compensating bet that was left open by a kill is rolled back like every other bet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from predictu_dispatch.certification.bookings import DEFINITE, Booking, bookings_of
from predictu_dispatch.certification.books import Bet, bets_of, net_of, starts_of
from predictu_dispatch.certification.journal import Journal
from predictu_dispatch.certification.limits import Limits
from predictu_dispatch.certification.observation import Outcome, Sent, money
from predictu_dispatch.certification.recording import RecordingSender, read_balance, run_all
from predictu_dispatch.certification.requests import Prepared, again, bet_id_of, build, request_id_of
from predictu_dispatch.certification.result import PlayerMoney, Reversal
from predictu_dispatch.certification.sender import Sender
from predictu_dispatch.certification.target import Target
from predictu_dispatch.certification.unresolved import reason_of, unresolved
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.methods import Method

SCENARIO: Final = "reversal"
"""The scenario id of the bets that compensate, and of the balances that are read."""
UNDO: Final = "undo-"
"""A rollback is named after the request that it undoes."""
_ROUNDS: Final = 3
_REST_S: Final = 0.3
_UNREACHED: Final = frozenset({Outcome.NOT_SENT, Outcome.NO_ANSWER})
_NO_CAP: Final = 10**9
"""The cap does not count requests that undo: undoing must not stop in the middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often and how long requests are repeated; after `limit_s` nothing more is sent."""

    tries: int
    first_delay_s: float
    delay_max_s: float
    limit_s: float


AFTER_RUN: Final = Patience(tries=5, first_delay_s=0.5, delay_max_s=5.0, limit_s=120.0)
AFTER_SCENARIO: Final = Patience(tries=2, first_delay_s=0.2, delay_max_s=1.0, limit_s=15.0)
"""What is left open then is undone after the run."""


async def clean(target: Target, folder: Path, *, run: str, patience: Patience = AFTER_RUN) -> Reversal:
    """Undo an earlier run from the journal in its folder. Raises RunRefusedError.

    It may be called again at any time: what is undone stays undone.
    """
    with Journal.open(folder) as journal:
        journal.check_target(target, run)
        sender = Sender(target, run=run)
        try:
            return await Reverser(target, journal, sender).reverse(patience)
        finally:
            await sender.close()


class Reverser:
    """Undoes the bets of one run. Only one task may use it at a time."""

    def __init__(
        self, target: Target, journal: Journal, sender: Sender, *, confirmed: list[Sent] | None = None
    ) -> None:
        limits = Limits(requests_max=_NO_CAP, requests_per_s=target.requests_per_s)
        self._target = target
        self._journal = journal
        self.sender = RecordingSender(sender, journal, limits, confirmed=confirmed)
        self._run = journal.head.run
        self._done_before = _done(self._bets())
        self._patience = AFTER_RUN
        self._ends_at_s = 0.0
        self._is_unreachable = False
        """A request had no answer after all tries: others have one try, until one is answered."""

    async def undo_scenario(self, scenario_id: str) -> None:
        """Roll back what a scenario left open, so that later ones find the money."""
        self._begin(AFTER_SCENARIO)
        await self._settle(scenario_id)

    async def reverse(self, patience: Patience = AFTER_RUN) -> Reversal:
        """Undo the whole run; return what was undone since this object exists, and what is left."""
        self._begin(patience)
        refusals: tuple[str, ...] = ()
        asked: set[str] = set()
        for _ in range(_ROUNDS):
            was_unsettled = await self._settle()
            if self._is_unreachable:
                break
            was_unsettled |= await self._ask_again(asked)
            is_compensated, refusals = await self._compensate()
            if refusals or not (was_unsettled or is_compensated):
                break
        starts = starts_of(self._journal.entries)
        players = [
            PlayerMoney(
                player_id=player_id,
                before=starts.get(player_id),
                after=await self._last_balance_of(player_id, starts[player_id]) if player_id in starts else None,
            )
            for player_id in self._journal.head.players
        ]
        rolled_back, compensated = _done(self._bets())
        return Reversal(
            rolled_back=rolled_back - self._done_before[0],
            compensated=compensated - self._done_before[1],
            unresolved=(*self._journal.damage, *unresolved(self._bets(), players, self._money), *refusals),
            players=tuple(players),
        )

    def _begin(self, patience: Patience) -> None:
        self._patience = patience
        self._ends_at_s = asyncio.get_running_loop().time() + patience.limit_s
        self._is_unreachable = False

    def _bets(self, scenario_id: str = "") -> list[Bet]:
        return bets_of(self._journal.entries, scenario=scenario_id)

    def _money(self, subunits: int) -> str:
        return money(subunits, self._journal.head.currency, self._journal.head.digits)

    async def _settle(self, scenario_id: str = "") -> bool:
        """Repeat what is unknown, the debits first, and roll back what is open; whether any was."""
        was_unsettled = False
        for is_placement in (True, False):
            unknown = [
                booking
                for bet in self._bets(scenario_id)
                for booking in bet.to_repeat
                if (booking.request.method is Method.BET_MAKE) is is_placement
            ]
            was_unsettled |= bool(unknown)
            await run_all(partial(self._until_definite, booking.request) for booking in unknown)
        opened = [placement for bet in self._bets(scenario_id) for placement in bet.to_roll_back]
        await run_all(partial(self._until_definite, self._undoing(placement)) for placement in opened)
        return was_unsettled or bool(opened)

    async def _ask_again(self, asked: set[str]) -> bool:
        """Repeat each end with an undeclared answer once; return whether there was any.

        Its status may be declared by now, and a repetition may have another one.
        """
        ends = [end.request for bet in self._bets() for end in bet.to_ask_again if end.request.request_id not in asked]
        asked |= {end.request_id for end in ends}
        await run_all(partial(self._until_definite, end) for end in ends)
        return bool(ends)

    def _undoing(self, placement: Booking) -> Prepared:
        """Return the rollback of a placement; the bytes of the first one if it was sent before."""
        first, booked = placement.sendings[0].request, placement.request
        request_id = str(request_id_of(self._run, first.scenario_id, f"{UNDO}{first.name}"))
        if earlier := self._journal.sendings_of(request_id):
            return earlier[0]
        return build(
            run=self._run,
            scenario_id=first.scenario_id,
            name=f"{UNDO}{first.name}",
            method=Method.BET_ROLLBACK,
            target=self._target,
            now=datetime.now(UTC),
            currency=booked.currency,
            player_id=booked.player_id,
            bet_id=booked.bet_id,
            amount=booked.amount,
            rollback_of=booked.request_id,
        )

    async def _until_definite(self, first: Prepared) -> None:
        """Send the request until its answer is definite or the patience is over."""
        delay_s = self._patience.first_delay_s
        loop = asyncio.get_running_loop()
        is_reached = False
        for attempt in range(self._patience.tries):
            if attempt:
                if self._is_unreachable:
                    return
                await asyncio.sleep(max(0.0, min(delay_s, self._ends_at_s - loop.time())))
                delay_s = min(2 * delay_s, self._patience.delay_max_s)
            if loop.time() >= self._ends_at_s:
                return
            sent = await self.sender.send(self._next(first))
            is_reached |= sent.outcome not in _UNREACHED
            if is_reached:
                self._is_unreachable = False
            if sent.outcome in DEFINITE:
                return
        self._is_unreachable |= not is_reached

    def _next(self, first: Prepared) -> Prepared:
        """Return the next sending of a request: the first one, or the same bytes once more."""
        count = len(self._journal.sendings_of(first.request_id))
        return again(first, name=f"{first.name}-{count + 1}", number=count + 1) if count else first

    async def _compensate(self) -> tuple[bool, tuple[str, ...]]:
        """Compensate each player once; return whether there was something, and what was refused."""
        bets = self._bets()
        is_compensated = False
        refusals: tuple[str, ...] = ()
        for player_id, start in starts_of(self._journal.entries).items():
            if not any(bet.player_id == player_id for bet in bets):
                continue
            balance = await self._balance_of(player_id)
            net = 0 if balance is None else net_of(bets, player_id, balance - start)
            if net:
                is_compensated = True
                refusals += await self._compensate_player(player_id, net, bets)
        return is_compensated, refusals

    async def _compensate_player(self, player_id: str, net: int, bets: Iterable[Bet]) -> tuple[str, ...]:
        """Take back a gain by a lost bet, or give back a loss by a won one."""
        index = self._journal.head.players.index(player_id) + 1
        number = 1 + sum(bet.scenario == SCENARIO and bet.player_id == player_id for bet in bets)
        label = f"compensation-{index}-{number}"
        prepare = partial(
            build,
            run=self._run,
            scenario_id=SCENARIO,
            target=self._target,
            player_id=player_id,
            bet_id=bet_id_of(self._run, SCENARIO, label),
        )
        # A debit must be above 0.
        stake = max(net, 1)
        debit = prepare(name=label, method=Method.BET_MAKE, amount=stake, now=datetime.now(UTC))
        await self._until_definite(debit)
        booking = next(
            (each for each in bookings_of(self._journal.entries) if each.request.request_id == debit.request_id), None
        )
        if booking is not None and booking.effect is Effect.UNKNOWN:
            # It is rolled back in the next round.
            return ()
        if booking is None or booking.effect is Effect.NONE:
            why = "not sent in time" if booking is None else reason_of(booking.last)
            sentence = (
                f"player {player_id}: by confirmed answers the run's net effect is {self._money(net)}; the debit of"
                f" {self._money(stake)} that begins its compensation was not booked ({why}); ask the operator to"
                " correct the balance"
            )
            return (sentence,)
        end = Method.BET_LOSE if net > 0 else Method.BET_WIN
        win = None if net > 0 else stake - net
        await self._until_definite(prepare(name=f"{label}-end", method=end, amount=win, now=datetime.now(UTC)))
        return ()

    async def _last_balance_of(self, player_id: str, start: int) -> int | None:
        """Read the balance until it rests: a wrong wallet may answer before it books."""
        balance = await self._balance_of(player_id)
        for _ in range(_ROUNDS):
            if balance in (None, start):
                break
            await asyncio.sleep(_REST_S)
            earlier, balance = balance, await self._balance_of(player_id)
            if balance == earlier:
                break
        return balance

    async def _balance_of(self, player_id: str) -> int | None:
        n = self._journal.next_n()
        request = build(
            run=self._run,
            scenario_id=SCENARIO,
            name=f"balance-{n}",
            method=Method.BALANCE,
            target=self._target,
            now=datetime.now(UTC),
            player_id=player_id,
        )
        return (await read_balance(self.sender, request))[-1].balance


def _done(bets: Iterable[Bet]) -> tuple[int, int]:
    """Return how many bets were rolled back by a reversal, and how many compensate."""
    rolled_back = compensated = 0
    for bet in bets:
        ended_by = [each.request.name for each in bet.ends if each.effect is Effect.APPLIED]
        rolled_back += any(name.startswith(UNDO) for name in ended_by)
        compensated += bet.scenario == SCENARIO and any(not name.startswith(UNDO) for name in ended_by)
    return rolled_back, compensated
