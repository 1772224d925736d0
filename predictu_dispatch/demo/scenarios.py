"""The scenarios: faults at chosen points of a callback's life, so that every path occurs.

Each sets the flaky operator's fault rates, or kills a process, and waits for the state it is about,
such as "the placement is in flight". They run one after another beside the traffic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from predictu_dispatch.core.signing import unsigned_token
from predictu_dispatch.demo.environment import Environment, Operator
from predictu_dispatch.demo.fixtures import (
    ATTEMPT_TIMEOUT_S,
    DOWN,
    FLAKY,
    GOOD,
    MIXED_FAULTS,
    NO_FAULTS,
    POOR,
    FaultRates,
)
from predictu_dispatch.demo.process import DemoError
from predictu_dispatch.demo.producer import Bet, Producer
from predictu_dispatch.demo.traffic import end, place

_ARRIVAL_S: Final = 0.25
"""Requests in flight have arrived after this pause, and closed connections are noticed."""
_DAEMON_DOWN_S: Final = 1.5
_SHORT_DEADLINE_S: Final = 0.8
"""Expires while the daemon is down."""
_LONG_DEADLINE_S: Final = 30.0
"""Longer than the lease of an attempt that was lost with its daemon."""
_OPERATOR_DOWN_S: Final = 3.0

SCENARIO_BETS: Final = 21
"""How many bets all scenarios place with `repeats` = 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioContext:
    """What a scenario acts on: `repeats` bets of each kind; `tasks` may outlive the scenario."""

    environment: Environment
    producer: Producer
    repeats: int
    tasks: asyncio.TaskGroup

    @asynccontextmanager
    async def faults(self, rates: FaultRates) -> AsyncIterator[None]:
        """Set the flaky operator's fault rates for the block."""
        await self.environment.set_fault_rates(FLAKY, rates)
        yield
        await self.environment.set_fault_rates(FLAKY, MIXED_FAULTS)

    def new_bets(self, operator_id: str, player_id: str | None = None) -> list[Bet]:
        return [self.producer.new_bet(operator_id, player_id) for _ in range(self.repeats)]

    async def place(
        self, bets: Sequence[Bet], *, terminal: str | None = None, expires_in_s: float | None = None
    ) -> None:
        """Enqueue each placement, with a terminal that has to wait for it, if any."""
        for bet in bets:
            async with self.producer.transaction() as transaction:
                await transaction.enqueue(bet, "BET_MAKE", expires_in_s=expires_in_s)
                if terminal is not None:
                    await transaction.enqueue(bet, terminal)

    async def confirmed_bets(self, operator_id: str) -> list[Bet]:
        bets = await asyncio.gather(*(place(self.producer, operator_id) for _ in range(self.repeats)))
        return [bet for bet in bets if bet is not None]

    async def wait_final(self, bets: Sequence[Bet]) -> None:
        await asyncio.gather(*(self.producer.wait_final(bet.operator_id, bet.placement_id) for bet in bets))

    async def wait_placements(self, bets: Sequence[Bet], state: str, *, effect: str | None = None) -> None:
        """Wait until each placement had this state and effect."""
        wait = self.producer.wait_state
        await asyncio.gather(*(wait(bet.operator_id, bet.placement_id, state, effect=effect) for bet in bets))

    async def roll_back(
        self, bets: Sequence[Bet], state: str, *, effect: str | None = None, reason: str | None = None
    ) -> None:
        """Call rollback_bet() once the placement has this state, effect and reason."""

        async def roll_back_one(bet: Bet) -> None:
            await self.producer.wait_state(bet.operator_id, bet.placement_id, state, effect=effect, reason=reason)
            await self.producer.rollback(bet)

        await asyncio.gather(*map(roll_back_one, bets))


async def _legacy_bets(context: ScenarioContext) -> None:
    """Bets that an earlier system placed are adopted at every operator, and ended in three ways."""
    producer, operators = context.producer, context.environment.operators
    context.environment.announce("bets that an earlier system placed are taken over, and ended")

    async def take_over(bet: Bet, method: str | None) -> None:
        await _place_legacy_bet(context.environment, operators[bet.operator_id], bet)
        await producer.adopt(bet)
        request_id = await (producer.enqueue(bet, method) if method else producer.rollback(bet))
        if request_id is None:
            raise DemoError(f"{bet.bet_id}: the rollback of an adopted bet must be sent")
        await producer.wait_final(bet.operator_id, request_id)

    for operator_id, method in ((GOOD, "BET_WIN"), (FLAKY, None), (DOWN, "BET_LOSE")):
        await asyncio.gather(*(take_over(bet, method) for bet in context.new_bets(operator_id)))


async def _place_legacy_bet(environment: Environment, operator: Operator, bet: Bet) -> None:
    """Post a BET_MAKE to the operator as another system would: with its own writer of the body."""
    amount = str(bet.amount)
    if operator.fixture.amount_format == "decimal":
        amount = f"{bet.amount // 100}.{bet.amount % 100:02d}"
    params = bet.params("BET_MAKE").replace(f'"amount": {bet.amount}', f'"amount": {amount}')
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = (
        f'{{"method":"BET_MAKE","timestamp":"{timestamp}","request_id":"{bet.placement_id}",'
        f'"operator_id":"{bet.operator_id}","params":{params}}}'
    ).encode()
    key = operator.signing_key
    unsigned = unsigned_token(
        key,
        operator_id=bet.operator_id,
        method="BET_MAKE",
        jti=str(bet.placement_id),
        body=body,
        issued_at_s=int(time.time()),
        ttl_s=30,
    )
    headers = {"Authorization": f"Bearer {key.signed(unsigned)}", "Content-Type": "application/json"}
    async with environment.http.post(operator.callback_url, data=body, headers=headers) as answer:
        if not answer.ok:
            raise DemoError(f"{operator.callback_url} answered {answer.status}: {await answer.text()}")


async def _errors(context: ScenarioContext) -> None:
    """The operator answers 500: first before the money moves, then after it."""
    context.environment.announce(f"{FLAKY} answers HTTP 500 to everything, partly after the money moved")
    rejected_later, rolled_back = context.new_bets(FLAKY, POOR), context.new_bets(FLAKY)
    async with context.faults({"error_before_apply": 1}):
        await context.place([*rejected_later, *rolled_back])
        await asyncio.gather(
            context.roll_back(rolled_back, "ready", effect="unknown"),
            context.wait_placements(rejected_later, "ready", effect="unknown"),
        )
        await context.environment.set_fault_rates(FLAKY, NO_FAULTS)
        await context.wait_final(rejected_later)
    exhausted, exhausted_with_terminal = context.new_bets(FLAKY), context.new_bets(FLAKY)
    async with context.faults({"error_after_apply": 1}):
        await context.place(exhausted)
        await context.place(exhausted_with_terminal, terminal="BET_WIN")
        await context.wait_final([*exhausted, *exhausted_with_terminal])


async def _stalls(context: ScenarioContext) -> None:
    """rollback_bet() meets placements in flight that succeed, time out, or are applied too late."""
    context.environment.announce(f"{FLAKY} answers too late, while bets under way are rolled back")
    succeeding, succeeding_with_terminal = context.new_bets(FLAKY), context.new_bets(FLAKY)
    async with context.faults({"stall_before_apply": 1, "stall_s": ATTEMPT_TIMEOUT_S / 2}):
        await context.place(succeeding)
        await context.place(succeeding_with_terminal, terminal="BET_SELL")
        await context.roll_back([*succeeding, *succeeding_with_terminal], "in_flight")
        await asyncio.sleep(_ARRIVAL_S)
    await context.wait_final([*succeeding, *succeeding_with_terminal])
    for fault in ("stall_after_apply", "stall_before_apply"):
        unanswered = context.new_bets(FLAKY)
        async with context.faults({fault: 1, "stall_s": 2 * ATTEMPT_TIMEOUT_S}):
            await context.place(unanswered)
            await context.roll_back(unanswered, "in_flight")
            await asyncio.sleep(_ARRIVAL_S)
            await context.environment.set_fault_rates(FLAKY, NO_FAULTS)
            await context.wait_final(unanswered)


async def _daemon_crash(context: ScenarioContext) -> None:
    """The daemon is killed with attempts in flight; placements expire meanwhile."""
    environment, producer = context.environment, context.producer
    await environment.set_fault_rates(FLAKY, NO_FAULTS)
    winners = await context.confirmed_bets(FLAKY)
    lost, lost_and_retried = context.new_bets(FLAKY), context.new_bets(FLAKY)
    async with context.faults({"stall_after_apply": 1, "stall_s": 2 * ATTEMPT_TIMEOUT_S}):
        win_ids = [await producer.enqueue(bet, "BET_WIN") for bet in winners]
        await context.place(lost)
        await context.place(lost_and_retried, expires_in_s=_LONG_DEADLINE_S)
        await asyncio.gather(
            context.wait_placements([*lost, *lost_and_retried], "in_flight"),
            *(producer.wait_state(FLAKY, win_id, "in_flight") for win_id in win_ids),
        )
        await asyncio.sleep(_ARRIVAL_S)
        await environment.daemon.kill()
        environment.announce("the daemon was killed on purpose, mid-request; another takes over")
    context.tasks.create_task(_sell_confirmed(producer, lost_and_retried), name="bets retried after the crash")
    expiring, expiring_with_terminal = context.new_bets(GOOD), context.new_bets(GOOD)
    never_attempted = context.new_bets(GOOD)
    await context.place(expiring, expires_in_s=_SHORT_DEADLINE_S)
    await context.place(expiring_with_terminal, expires_in_s=_SHORT_DEADLINE_S, terminal="BET_WIN")
    await context.place(never_attempted)
    await context.roll_back(never_attempted, "ready")
    await asyncio.sleep(_DAEMON_DOWN_S)
    await environment.start_daemon()
    environment.announce("another daemon took over; it finishes what the first one left")
    await context.wait_final([*expiring, *expiring_with_terminal])


async def _sell_confirmed(producer: Producer, bets: Sequence[Bet]) -> None:
    for bet in bets:
        if await producer.wait_final(bet.operator_id, bet.placement_id) == "delivered":
            await end(producer, bet, "BET_SELL")


async def _operator_outage(context: ScenarioContext) -> None:
    """An operator is killed: placements fail and end, credits wait until it is back."""
    environment, producer = context.environment, context.producer
    operator = environment.operators[DOWN]
    confirmed = await context.confirmed_bets(DOWN)
    await operator.process.kill()
    environment.announce(f"{DOWN} went down: its new bets fail, its payouts wait")
    await asyncio.sleep(_ARRIVAL_S)
    rolled_back = context.new_bets(DOWN)
    await context.place(rolled_back)
    await context.roll_back(rolled_back, "ready", effect="none", reason="connect_refused")
    exhausted, exhausted_with_terminal = context.new_bets(DOWN), context.new_bets(DOWN)
    await context.place(exhausted)
    await context.place(exhausted_with_terminal, terminal="BET_LOSE")
    refunds = [context.tasks.create_task(end(producer, bet, "BET_REFUND")) for bet in confirmed]
    await context.wait_final([*exhausted, *exhausted_with_terminal])
    await asyncio.sleep(_OPERATOR_DOWN_S)
    await operator.start()
    environment.announce(f"{DOWN} came back: what waited is sent")
    await asyncio.gather(*refunds)


SCENARIOS: Final[tuple[Callable[[ScenarioContext], Awaitable[None]], ...]] = (
    _legacy_bets,
    _errors,
    _stalls,
    _daemon_crash,
    _operator_outage,
)
