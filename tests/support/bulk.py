"""Enqueues many callbacks at once, and measures an operator's limits while they are delivered."""

import asyncio
import uuid
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise

from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR
from tests.support.operators import Request

_BEAT_S = 0.005
STAKE, PAYOUT = 500, 1_200
_AT_ONCE = 1_000
"""Takes a second or two on a loaded machine."""


async def place_many(environment: Environment, count: int) -> None:
    """Enqueues `count` bets, each of another player, with the operator's own deadline."""
    await environment.harness.producer.execute(
        "select predictu_dispatch.enqueue_callback($1, 'BET_MAKE', jsonb_build_object('player_id', 'p-' || n,"
        "       'currency', 'EUR', 'amount', $3::int, 'bet_id', gen_random_uuid(), 'bet', jsonb_build_object("
        "       'market_id', 'm1', 'outcome', 'yes', 'odds', 1.85, 'shares', 10, 'price', 50)))"
        "  from generate_series(1, $2::int) n",
        *(OPERATOR, count, STAKE),
    )


async def win_many(environment: Environment, count: int) -> None:
    """Adopts `count` bets, each of another player, and enqueues a BET_WIN for each."""
    for first in range(0, count, _AT_ONCE):
        placements = [uuid.uuid4() for _ in range(first, min(first + _AT_ONCE, count))]
        for n, placement in enumerate(placements, first):
            environment.operator.book(f"won-{n}", str(placement), f"p-{n}", STAKE)
        await environment.harness.producer.execute(
            "select predictu_dispatch.adopt_bet($1, 'won-' || n + $4 - 1, 'p-' || n + $4 - 1, 'EUR', $3, id)"
            "  from unnest($2::uuid[]) with ordinality as placement (id, n)",
            *(OPERATOR, placements, STAKE, first),
        )
        await environment.harness.producer.execute(
            "select predictu_dispatch.enqueue_callback($1, 'BET_WIN', jsonb_build_object('player_id', 'p-' || n,"
            "       'currency', 'EUR', 'amount', $4::int, 'bet_id', 'won-' || n))"
            "  from generate_series($2::int, $3::int) n",
            *(OPERATOR, first, first + len(placements) - 1, PAYOUT),
        )


async def slots(environment: Environment, lane: str = "interactive", operator_id: str = OPERATOR) -> dict[str, int]:
    rows = await environment.harness.owner.fetch(
        "select instance, case $1 when 'interactive' then interactive_slots else settlement_slots end as slots"
        "  from predictu_dispatch.share where operator_id = $2",
        *(lane, operator_id),
    )
    return {row["instance"]: row["slots"] for row in rows}


async def rates(environment: Environment) -> dict[str, float]:
    """Returns each daemon's part of the operator's rate."""
    rows = await environment.harness.owner.fetch(
        "select instance, requests_per_s from predictu_dispatch.share where operator_id = $1", OPERATOR
    )
    return {row["instance"]: row["requests_per_s"] for row in rows}


async def until_slots(
    environment: Environment,
    *,
    lane: str = "interactive",
    operator_id: str = OPERATOR,
    within_s: float = 15.0,
    **expected: int,
) -> None:
    """Waits until exactly these daemons have these slots.

    An underscore in a name stands for a dash.
    """
    wanted = {name.replace("_", "-"): count for name, count in expected.items()}

    async def are_equal() -> bool:
        return await slots(environment, lane, operator_id) == wanted

    await until(f"the shares are {wanted}", are_equal, within_s=within_s)


async def until_heartbeats(environment: Environment, *instances: str, times: int = 2) -> None:
    """Waits for `times` more heartbeats of each of these daemons.

    The second reports the first one's answer.
    """
    for _ in range(times):
        before = await _seen_at(environment, instances)

        async def all_have(before: dict[str, object] = before) -> bool:
            now = await _seen_at(environment, instances)
            return all(now.get(name, before[name]) != before[name] for name in instances)

        await until(f"{instances} have sent a heartbeat", all_have)


async def _seen_at(environment: Environment, instances: Sequence[str]) -> dict[str, object]:
    rows = await environment.harness.owner.fetch(
        "select instance, seen_at from predictu_dispatch.daemon where instance = any ($1)", list(instances)
    )
    return {row["instance"]: row["seen_at"] for row in rows}


@dataclass(slots=True)
class EventLoopStalls:
    """The longest time during which the test's own event loop did not run."""

    longest_s: float = 0.0


@asynccontextmanager
async def measure_stalls() -> AsyncIterator[EventLoopStalls]:
    """Measures the stalls of the test's event loop, in which the operator cannot answer either."""
    found = EventLoopStalls()

    async def beat() -> None:
        loop = asyncio.get_running_loop()
        while True:
            before_s = loop.time()
            await asyncio.sleep(_BEAT_S)
            found.longest_s = max(found.longest_s, loop.time() - before_s - _BEAT_S)

    beating = asyncio.create_task(beat())
    try:
        yield found
    finally:
        beating.cancel()


def max_requests_within(requests: Sequence[Request], window_s: float = 1.0) -> int:
    """Returns the highest number of requests that arrived within any window of this length."""
    arrived = sorted(request.arrived_at_s for request in requests)
    return max((n + 1 - bisect_left(arrived, at_s - window_s) for n, at_s in enumerate(arrived)), default=0)


def longest_gap_s(requests: Sequence[Request]) -> float:
    """Returns the longest time between two consecutive requests."""
    arrived = sorted(request.arrived_at_s for request in requests)
    return max((later - sooner for sooner, later in pairwise(arrived)), default=0.0)
