"""The database's clock steps while real daemons run: nothing is lost, doubled or kept waiting.

Postgres runs with the clock of tests/support/stepped_clock.py; the daemons, the operator and this
test keep theirs.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import jwt
import pytest
from aiohttp import web

from predictu_dispatch.core.callback import LEASE_MARGIN_S
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.bulk import until_heartbeats, until_slots, win_many
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import enqueue
from tests.support.postgres import cloned_database, create_template, server_of
from tests.support.stepped_clock import SteppedClock, stepped_clock

ATTEMPT_S = 2.0
WINDOW_S = ATTEMPT_S + LEASE_MARGIN_S
"""The longest send window: no daemon sends an attempt later than this after its claim."""
AFTER_WINDOW_S = 10.0
LANE: dict[str, Any] = {
    "attempt_timeout_s": ATTEMPT_S,
    "connect_timeout_s": ATTEMPT_S,
    "max_in_flight": 8,
    "deadline_s": 30.0,
}
SETTLEMENT = LANE | {"deadline_s": 0, "initial_delay_s": 3.0, "max_delay_s": 300.0, "jitter": 0}
WAIT_FOR_SHARE_S = 12.0
"""The heartbeat timeout after the step, and again if a heartbeat was late."""
HOUR_S = 3600.0
STEPS_S = (-HOUR_S, HOUR_S)


@pytest.fixture(scope="module")
def clock() -> Iterator[SteppedClock]:
    with stepped_clock() as clock:
        yield clock


@pytest.fixture(scope="module")
def server(clock: SteppedClock) -> Iterator[EmbeddedPostgres]:
    with clock.postgres() as server:
        yield server


@pytest.fixture(scope="module")
def stepped_template(server: EmbeddedPostgres) -> str:
    return asyncio.run(create_template(server_of(server)))


@pytest.fixture
async def environment(
    tmp_path: Path, clock: SteppedClock, server: EmbeddedPostgres, stepped_template: str
) -> AsyncIterator[Environment]:
    clock.step(-clock.offset_s)
    async with (
        cloned_database(server_of(server), stepped_template) as database,
        open_environment(tmp_path, database) as environment,
    ):
        environment.fleet.write_operator(
            environment.operator.url, interactive=LANE, settlement=SETTLEMENT, rollback={"recheck_s": 0}
        )
        yield environment


@pytest.mark.parametrize("step_s", STEPS_S)
async def test_after_a_step_a_lost_debit_is_rolled_back_and_nothing_else_waits_or_is_reaped(
    environment: Environment, clock: SteppedClock, step_s: float
) -> None:
    """The rest: an attempt in flight, a due callback, a retry, and what is enqueued later."""
    operator, harness = environment.operator, environment.harness
    lost, survivor = await environment.fleet.start_all("host-1", "host-2")
    for bet_id in ("retried", "before", "after"):
        await environment.adopt(bet_id)
    operator.answer = lambda request: busy() if operator.sent(request.request_id) == [request] else None
    retried = await harness.end("BET_WIN", "retried")
    await until("the first attempt has failed", lambda: is_in(environment, retried, "ready", attempts=1))
    operator.answer = lambda _: None
    debit = await place_with(environment, "lost", lost)
    lost.kill()
    rollback = await harness.rollback((await harness.callback(debit))["bet_id"])
    assert await harness.state(rollback) == "waiting"
    answered = await place_with(environment, "answered", survivor)
    survivor.freeze()
    before = await harness.end("BET_WIN", "before")
    operator.stop_holding()
    clock.step(step_s)
    survivor.thaw()
    began_s = time.monotonic()
    operator.release()
    after = [await harness.place("after the step"), await harness.end("BET_WIN", "after")]
    others = {"answered": answered, "before": before, "retried": retried, "placed": after[0], "won": after[1]}
    took_s = {}
    for name, request_id in others.items():
        await until_delivered(environment, request_id)
        took_s[name] = time.monotonic() - began_s
    assert max(took_s.values()) < WINDOW_S, took_s
    await until_delivered(environment, rollback)
    # No sooner: until then its daemon might still be connecting.
    assert WINDOW_S <= time.monotonic() - began_s < WINDOW_S + AFTER_WINDOW_S
    await environment.until_all_final()
    assert await environment.audit(debit) == [(1, "retry", "unanswered", "interrupted", "host-1")]
    assert await environment.audit(answered) == [(1, "delivered", "answered", None, "host-2")]
    assert operator.faults == await environment.audit_faults() == []
    [stepped] = survivor.lines("clock.stepped")
    assert stepped["step_s"] == pytest.approx(step_s, abs=1.0)
    assert await survivor.metric("clock_steps_total") == 1


async def test_no_step_gives_two_daemons_the_same_slots_and_a_killed_one_returns_its_own(
    environment: Environment, clock: SteppedClock
) -> None:
    operator = environment.operator
    operator.answers_in_s = 0.2
    killed, _ = await environment.fleet.start_all("host-1", "host-2")
    await win_many(environment, 600)
    half = LANE["max_in_flight"] // 2
    await until_slots(environment, lane="settlement", host_1=half, host_2=half)
    # The small ones far from the host's clock, or the tokens would follow them.
    for step_s in (-HOUR_S, 2 * HOUR_S, 2.0, 2.9, -1.5, 1.2, -HOUR_S - 4.6):
        clock.step(step_s)
        await until_heartbeats(environment, "host-1", "host-2", times=1)
    killed.kill()
    clock.step(-HOUR_S)
    await until_slots(environment, lane="settlement", within_s=WAIT_FOR_SHARE_S, host_2=2 * half)
    operator.answers_in_s = 0.0
    await environment.until_all_final()
    assert operator.busiest["settlement"] <= 2 * half
    assert await environment.states() == {"delivered": 600}
    # Only the attempts of the killed daemon.
    assert await interrupted(environment) <= {"host-1"}
    assert operator.faults == await environment.audit_faults() == []


async def test_a_name_is_free_again_after_the_timeout_although_its_last_heartbeat_lies_ahead(
    environment: Environment, clock: SteppedClock
) -> None:
    first = await environment.fleet.start("host-1")
    first.kill()
    clock.step(-HOUR_S)
    second = environment.fleet.spawn("host-1")
    await second.until_logged("daemon.started", times=2)
    assert second.lines("instance.taken")
    # And it stays taken while its daemon runs.
    clock.step(-HOUR_S)
    assert await environment.fleet.spawn("host-1").exited() == 1
    assert second.process.poll() is None


@pytest.mark.parametrize(("ahead_s", "follows"), [(2.0, "the database"), (-2.0, "the database"), (60.0, "the host")])
async def test_a_token_is_issued_at_the_databases_time_unless_the_host_differs_by_half_a_minute(
    environment: Environment, ahead_s: float, follows: str
) -> None:
    with stepped_clock() as host_clock:
        host_clock.step(ahead_s)
        daemon = environment.fleet.spawn("host-1", environment=host_clock.environment)
        await daemon.ready()
        balance = await enqueue(environment.harness.producer, "BALANCE", {"player_id": "p1", "currency": "EUR"})
        await until("it is sent", lambda: bool(environment.operator.sent(balance)))
        request = environment.operator.sent(balance)[0]
        issued_at_s = jwt.decode(request.token, options={"verify_signature": False})["iat"]
        assert issued_at_s - request.arrived_at_s == pytest.approx(0 if follows == "the database" else ahead_s, abs=1.5)
        assert follows == "the host" or issued_at_s <= request.arrived_at_s
        assert await daemon.metric("clock_difference_seconds") == pytest.approx(-ahead_s, abs=0.3)
        # A step of the host's clock changes nothing: everything else is measured monotonically.
        host_clock.step(-ahead_s)
        environment.operator.requests.clear()
        await environment.harness.place("b1")
        await environment.until_all_final()
        assert daemon.lines("clock.stepped") == []


def busy() -> web.Response:
    return web.Response(status=503)


async def place_with(environment: Environment, bet_id: str, daemon: Daemon) -> UUID:
    """Places bets until this daemon has one in flight, which is held; returns its request id."""
    while True:
        environment.operator.hold()
        request_id = await environment.harness.place(bet_id)
        await until_sent(environment, request_id)
        if (await environment.harness.callback(request_id))["leased_by"] == daemon.instance:
            return request_id
        environment.operator.release_only([request_id])
        bet_id += "'"


async def until_sent(environment: Environment, request_id: UUID) -> None:
    await until(f"{request_id} is sent", lambda: environment.operator.live[str(request_id)] == 1)


async def is_in(environment: Environment, request_id: UUID | None, state: str, *, attempts: int = 0) -> bool:
    callback = await environment.harness.callback(request_id)
    return bool(callback["state"] == state and callback["attempts"] >= attempts)


async def until_delivered(environment: Environment, request_id: UUID | None) -> None:
    await until(f"{request_id} is delivered", lambda: is_in(environment, request_id, "delivered"))


async def interrupted(environment: Environment) -> set[str]:
    """The daemons whose attempts were reaped."""
    rows = await environment.harness.owner.fetch(
        "select distinct instance from predictu_dispatch.attempt where reason = 'interrupted'"
    )
    return {row["instance"] for row in rows}
