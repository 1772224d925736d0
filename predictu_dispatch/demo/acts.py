"""The acts of trouble, one after another beside the ordinary traffic: they bring about what chance might spare us.

An act sets the flaky operator's weather or pulls a plug, and then waits for the very moment it is about, such as "the
placement is in flight" or "its effect is unknown": so the paths follow from the script and not from luck.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from predictu_dispatch.demo.cast import ATTEMPT_TIMEOUT_S, CALM, DOWN, FLAKY, GOOD, MIXED, POOR, RICH, Weather
from predictu_dispatch.demo.platform import Bet, Platform
from predictu_dispatch.demo.predecessor import adopted
from predictu_dispatch.demo.stage import Stage
from predictu_dispatch.demo.traffic import end, placed

_ARRIVE_S: Final = 0.25
"""What is in flight has arrived by then, and a killed operator's idle connections are known to be closed."""
_DAEMON_DEAD_S: Final = 1.5
_SHORT_S: Final = 0.8
"""A deadline that passes while the daemon is dead."""
_PATIENT_S: Final = 30.0
"""A deadline that outlives the lease of an attempt which was lost with its daemon."""
_OPERATOR_DOWN_S: Final = 3.0
"""In addition to the time in which the directed placements run out of attempts."""

DIRECTED_BETS: Final = 21
"""What the acts place when every directed bet is played once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """The acts' stage and platform, and how many of each directed bet there are; `tasks` go on beside later acts."""

    stage: Stage
    platform: Platform
    repeats: int
    tasks: asyncio.TaskGroup

    @asynccontextmanager
    async def weather(self, weather: Weather) -> AsyncIterator[None]:
        """The flaky operator does this inside the block, and what it is known for afterwards."""
        await self.stage.change_weather(FLAKY, weather)
        yield
        await self.stage.change_weather(FLAKY, MIXED)

    def new_bets(self, operator_id: str, player_id: str | None = None) -> list[Bet]:
        """One directed bet, or as many as there are to be."""
        draws = self.platform.draws
        return [self.platform.new_bet(operator_id, player_id or draws.choice(RICH)) for _ in range(self.repeats)]

    async def place(self, bets: Sequence[Bet], *, early: str | None = None, expires_in_s: float | None = None) -> None:
        """All are placed, each in a transaction of its own, together with a terminal that has to wait, if any."""
        for bet in bets:
            async with self.platform.transaction() as transaction:
                await transaction.place(bet, expires_in_s=expires_in_s)
                if early is not None:
                    await transaction.enqueue(bet, early)

    async def settled(self, bets: Sequence[Bet]) -> None:
        """All placements are final."""
        await asyncio.gather(*(self.platform.settled(bet.operator_id, bet.placement_id) for bet in bets))

    async def glimpsed(self, bets: Sequence[Bet], state: str, *, effect: str | None = None) -> None:
        """Each placement was seen so."""
        await asyncio.gather(
            *(self.platform.glimpsed(bet.operator_id, bet.placement_id, state, effect=effect) for bet in bets)
        )

    async def taken_back(
        self, bets: Sequence[Bet], state: str, *, effect: str | None = None, reason: str | None = None
    ) -> None:
        """rollback_bet() was called at the moment in which each placement was so."""

        async def take_back(bet: Bet) -> None:
            await self.platform.glimpsed(bet.operator_id, bet.placement_id, state, effect=effect, reason=reason)
            async with self.platform.transaction() as transaction:
                await transaction.rollback(bet)

        await asyncio.gather(*map(take_back, bets))

    async def confirmed(self, operator_id: str) -> list[Bet]:
        """Directed bets whose placement was confirmed."""
        bets = [await placed(self.platform, operator_id) for _ in range(self.repeats)]
        return [bet for bet in bets if bet is not None]


Act = Callable[[Trouble], Awaitable[None]]


async def predecessor(trouble: Trouble) -> None:
    """Bets from before this system are adopted, at every operator, and ended in three ways."""
    operators = trouble.stage.operators
    for operator_id, method in ((GOOD, "BET_WIN"), (FLAKY, None), (DOWN, "BET_LOSE")):
        for _ in range(trouble.repeats):
            await adopted(trouble.platform, trouble.stage.http, operators[operator_id], method)


async def errors(trouble: Trouble) -> None:
    """Answers with 500: first before the money moves, then after it."""
    refused_later, taken_back = trouble.new_bets(FLAKY, POOR), trouble.new_bets(FLAKY)
    async with trouble.weather({"error_before_apply": 1}):
        await trouble.place([*refused_later, *taken_back])
        await asyncio.gather(
            trouble.taken_back(taken_back, "ready", effect="unknown"),
            trouble.glimpsed(refused_later, "ready", effect="unknown"),
        )
        await trouble.stage.change_weather(FLAKY, CALM)
        await trouble.settled(refused_later)
    given_up, given_up_early = trouble.new_bets(FLAKY), trouble.new_bets(FLAKY)
    async with trouble.weather({"error_after_apply": 1}):
        await trouble.place(given_up)
        await trouble.place(given_up_early, early="BET_WIN")
        await trouble.settled([*given_up, *given_up_early])


async def stalls(trouble: Trouble) -> None:
    """Slow answers: rollback_bet() meets placements in flight that succeed, that time out, and that land too late."""
    succeeds, succeeds_early = trouble.new_bets(FLAKY), trouble.new_bets(FLAKY)
    async with trouble.weather({"stall_before_apply": 1, "stall_s": ATTEMPT_TIMEOUT_S / 2}):
        await trouble.place(succeeds)
        await trouble.place(succeeds_early, early="BET_SELL")
        await trouble.taken_back([*succeeds, *succeeds_early], "in_flight")
        await asyncio.sleep(_ARRIVE_S)
    await trouble.settled([*succeeds, *succeeds_early])
    for fault in ("stall_after_apply", "stall_before_apply"):
        unanswered = trouble.new_bets(FLAKY)
        async with trouble.weather({fault: 1, "stall_s": 2 * ATTEMPT_TIMEOUT_S}):
            await trouble.place(unanswered)
            await trouble.taken_back(unanswered, "in_flight")
            await asyncio.sleep(_ARRIVE_S)
            await trouble.stage.change_weather(FLAKY, CALM)
            await trouble.settled(unanswered)


async def daemon_dies(trouble: Trouble) -> None:
    """The daemon is killed with attempts in flight; while nobody delivers, placements expire and are taken back."""
    stage, platform = trouble.stage, trouble.platform
    await stage.change_weather(FLAKY, CALM)
    winners = await trouble.confirmed(FLAKY)
    lost, patient = trouble.new_bets(FLAKY), trouble.new_bets(FLAKY)
    async with trouble.weather({"stall_after_apply": 1, "stall_s": 2 * ATTEMPT_TIMEOUT_S}):
        async with platform.transaction() as transaction:
            win_ids = [await transaction.enqueue(bet, "BET_WIN", amount=3 * bet.amount) for bet in winners]
        await trouble.place(lost)
        await trouble.place(patient, expires_in_s=_PATIENT_S)
        await asyncio.gather(
            trouble.glimpsed([*lost, *patient], "in_flight"),
            *(platform.glimpsed(FLAKY, win_id, "in_flight") for win_id in win_ids),
        )
        await asyncio.sleep(_ARRIVE_S)
        await stage.daemon.kill()
        stage.note("the daemon: killed with kill -9, attempts in flight")
    trouble.tasks.create_task(_end_confirmed(platform, patient), name="bets whose answer died with the daemon")
    expiring, expiring_early, taken_back = trouble.new_bets(GOOD), trouble.new_bets(GOOD), trouble.new_bets(GOOD)
    await trouble.place(expiring, expires_in_s=_SHORT_S)
    await trouble.place(expiring_early, expires_in_s=_SHORT_S, early="BET_WIN")
    await trouble.place(taken_back)
    await trouble.taken_back(taken_back, "ready")
    await asyncio.sleep(_DAEMON_DEAD_S)
    await stage.start_daemon()
    stage.note("the daemon: back; its reaper returns what the killed one held")
    await trouble.settled([*expiring, *expiring_early])


async def _end_confirmed(platform: Platform, bets: Sequence[Bet]) -> None:
    for bet in bets:
        seen = await platform.settled(bet.operator_id, bet.placement_id)
        if seen.state == "delivered":
            await end(platform, bet, "BET_SELL")


async def operator_goes_down(trouble: Trouble) -> None:
    """An operator is killed: placements find nobody and end, credits wait for its return."""
    stage, platform = trouble.stage, trouble.platform
    operator = stage.operators[DOWN]
    confirmed = await trouble.confirmed(DOWN)
    await operator.child.kill()
    stage.note(f"{DOWN}: killed with kill -9")
    await asyncio.sleep(_ARRIVE_S)
    taken_back = trouble.new_bets(DOWN)
    await trouble.place(taken_back)
    await trouble.taken_back(taken_back, "ready", effect="none", reason="connect_refused")
    given_up, given_up_early = trouble.new_bets(DOWN), trouble.new_bets(DOWN)
    await trouble.place(given_up)
    await trouble.place(given_up_early, early="BET_LOSE")
    refunds = [trouble.tasks.create_task(end(platform, bet, "BET_REFUND")) for bet in confirmed]
    await trouble.settled([*given_up, *given_up_early])
    await asyncio.sleep(_OPERATOR_DOWN_S)
    await operator.start()
    stage.note(f"{DOWN}: back, on the same port and with the same wallet")
    await asyncio.gather(*refunds)


ACTS: Final[tuple[Act, ...]] = (predecessor, errors, stalls, daemon_dies, operator_goes_down)
