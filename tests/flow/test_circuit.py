"""An operator that fails is left alone by the whole fleet, and is back, gently, within a second of its first answer."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from predictu_dispatch.core.breaker import SLOW_START_STEP_S
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.circuits import (
    ONE_ATTEMPT,
    OWN_TURN_S,
    enqueue_balance,
    failing,
    open_circuit,
    operator_row,
    others,
    outcomes,
    pings,
    print_figures,
    until_final,
    until_heartbeats_sent,
    until_nothing_in_flight,
    until_operator_is,
)
from tests.support.daemons import until
from tests.support.environment import OTHER, Environment, another_operator, open_environment
from tests.support.harness import DISABLED, OPERATOR, Harness, claim, connected, delivered, enqueue, retried, settle_all
from tests.support.operators import Request
from tests.support.postgres import Database
from tests.support.postgres_proxy import Trick, proxied

THRESHOLD = 3
NEVER_S = 600.0
"""Longer than any test: nobody looks whether the operator is back."""
OPEN_S = 0.5
BALANCE = {"player_id": "p1", "currency": "EUR"}
LOOK, TELL = "as ping_state", "predictu_dispatch.write_circuits("
"""What the monitor asks and writes, as the proxy knows it."""


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    async with open_environment(tmp_path, database) as environment:
        yield environment


def write_operator(environment: Environment, *, open_s: float, **sections: Any) -> None:
    """The circuit opens after THRESHOLD failures; each BALANCE and BET_MAKE is one attempt unless told otherwise."""
    settings: dict[str, Any] = {"interactive": ONE_ATTEMPT, **sections}
    circuit = {"failure_threshold": THRESHOLD, "open_s": open_s}
    environment.fleet.write_operator(environment.operator.url, circuit=circuit, **settings)


async def wins(environment: Environment, count: int) -> list[UUID]:
    """So many bets of before are won."""
    for n in range(count):
        await environment.adopt(f"won-{n}")
    return [await environment.harness.end("BET_WIN", f"won-{n}") for n in range(count)]


async def fate_of(environment: Environment, request_id: UUID) -> tuple[str, str | None, str, int]:
    """State, reason, effect and attempts of the callback."""
    callback = await environment.harness.callback(request_id)
    return callback["state"], callback["reason"], callback["effect"], callback["attempts"]


# -------------------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize("code", [500, 401, 404])
async def test_failures_in_a_row_open_the_circuit_and_everybody_can_see_it(environment: Environment, code: int) -> None:
    """A wrong key or a wrong address is a failure too, whoever's mistake it is."""
    write_operator(environment, open_s=NEVER_S)
    daemon = await environment.fleet.start("host-1")
    await until_final(environment, await enqueue_balance(environment))
    environment.operator.answer = failing(code)
    for _ in range(THRESHOLD - 1):
        await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, circuit="closed", health="degraded", consecutive_failures=THRESHOLD - 1)
    await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(
        environment, circuit="open", health="down", consecutive_failures=THRESHOLD, within_s=OWN_TURN_S
    )
    seen = await operator_row(environment)
    assert seen["last_success_at"] < seen["last_failure_at"] <= seen["circuit_since"] < seen["ping_at"]
    await daemon.until_logged("circuit.opened")
    assert await daemon.metric("circuit_open", OPERATOR) == 1
    assert await daemon.metric("operator_up", OPERATOR) == 0


async def test_a_business_refusal_is_an_answer_and_the_row_of_failures_begins_anew(environment: Environment) -> None:
    write_operator(environment, open_s=NEVER_S)
    await environment.fleet.start("host-1")

    async def balances(count: int, answer: Callable[[Request], web.Response | None]) -> None:
        environment.operator.answer = answer
        for _ in range(count):
            await until_final(environment, await enqueue_balance(environment))

    await balances(THRESHOLD - 1, failing())
    await balances(1, lambda _: web.json_response({"status": "PLAYER_NOT_FOUND"}))
    await balances(THRESHOLD - 1, failing())
    # Being asked to slow down is neither an answer nor an outage.
    await balances(THRESHOLD, failing(429))
    await until_operator_is(environment, circuit="closed", consecutive_failures=THRESHOLD - 1)
    await balances(1, failing())
    await until_operator_is(environment, circuit="open", within_s=OWN_TURN_S)


async def test_failures_that_two_daemons_saw_add_up(environment: Environment) -> None:
    """Neither has seen enough by itself; each has two slots, and all four attempts fail at once."""
    environment.fleet.write_operator(
        environment.operator.url,
        interactive=ONE_ATTEMPT | {"max_in_flight": 4},
        circuit={"failure_threshold": 4, "open_s": NEVER_S},
    )
    for instance in ("host-1", "host-2"):
        await environment.fleet.start(instance)
    await until_heartbeats_sent(environment, 2)
    environment.operator.answer = failing()
    environment.operator.hold()
    asked = [await enqueue_balance(environment) for _ in range(4)]
    await environment.until_in_flight(4)
    leased = await environment.harness.owner.fetch(
        "select leased_by, count(*) from predictu_dispatch.callback where state = 'in_flight' group by leased_by"
    )
    assert {lease["leased_by"]: lease["count"] for lease in leased} == {"host-1": 2, "host-2": 2}
    environment.operator.release()
    await until_final(environment, *asked)
    # Below its own threshold, each tells at its next look.
    await until_operator_is(environment, circuit="open", consecutive_failures=4, within_s=2.0)


async def test_an_old_success_does_not_wipe_out_what_another_daemon_has_seen_fail_since(
    environment: Environment,
) -> None:
    """It was heard, and changed nothing then; told again at each look, it would keep the circuit closed for ever."""
    write_operator(environment, open_s=NEVER_S)
    await environment.fleet.start("host-1")
    await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, health="healthy")
    await until_final(environment, await enqueue_balance(environment))
    await until_heartbeats_sent(environment, 1)
    await environment.harness.owner.execute(
        "update predictu_dispatch.operator set consecutive_failures = 2, health = 'degraded', revision = revision + 1"
    )
    await until_heartbeats_sent(environment, 2)
    assert (await operator_row(environment))["consecutive_failures"] == 2


# ----------------------------------------------------------------------------------------------------------- while open


async def test_while_it_is_open_bets_end_at_once_and_what_is_owed_waits(
    environment: Environment, database: Database
) -> None:
    """Two daemons, one of which has made no attempt itself: nothing reaches the operator from either of them."""
    write_operator(environment, open_s=NEVER_S)
    await environment.fleet.start("host-1")
    await environment.adopt("b-to-roll-back")
    await environment.adopt("b-to-pay")
    await open_circuit(environment, THRESHOLD)
    reached = len(environment.operator.requests)
    await environment.fleet.start("host-2")

    rollback = await environment.harness.rollback("b-to-roll-back")
    win = await environment.harness.end("BET_WIN", "b-to-pay")
    took_ms = []
    async with outcomes(database.owner) as heard:
        for n in range(10):
            enqueued = await (environment.harness.place(f"b-{n}") if n % 2 else enqueue_balance(environment))
            committed_at_s = time.monotonic()
            took_ms.append((await heard.of(enqueued) - committed_at_s) * 1000)
            assert await fate_of(environment, enqueued) == ("exhausted", "circuit_open", "none", 0)
    print_figures(f"commit to outcome: {sorted(round(ms, 1) for ms in took_ms)} ms")
    # The median is a few milliseconds; a reaper that was not told looks every half second.
    assert sorted(took_ms)[5] < 250
    assert max(took_ms) < 1000
    assert [(await environment.harness.bet(f"b-{n}"))["state"] for n in range(1, 10, 2)] == ["void"] * 5
    await until_heartbeats_sent(environment, 2)
    assert rollback is not None
    for waiting in (rollback, win):
        assert (await fate_of(environment, waiting))[::3] == ("ready", 0)
    assert len(environment.operator.requests) == reached


async def test_what_waits_for_a_retry_when_it_opens_ends_at_once_and_a_debit_that_may_stand_is_taken_back(
    environment: Environment, database: Database
) -> None:
    write_operator(environment, open_s=OPEN_S)
    harness = environment.harness
    # From before: attempted and due again in a minute.
    unknown = await harness.place("b-unknown")
    await harness.attempt(unknown, retried, due_in_s=60.0)
    never_left = await harness.place("b-never-left")
    await harness.attempt(never_left, retried, due_in_s=60.0, effect="none", evidence="not_sent")
    balance = await enqueue_balance(environment)
    await harness.attempt(balance, retried, due_in_s=60.0)
    flagged = await harness.end("BET_WIN", "b-unknown")
    environment.operator.book("b-unknown", str(unknown), "p1", 500)

    await environment.fleet.start("host-1")
    async with outcomes(database.owner) as heard:
        await open_circuit(environment, THRESHOLD)
        for ended, effect in ((unknown, "unknown"), (never_left, "none"), (balance, "unknown")):
            await heard.of(ended, within_s=OWN_TURN_S)
            assert await fate_of(environment, ended) == ("exhausted", "circuit_open", effect, 1)
    assert (await harness.bet("b-never-left"))["state"] == "void"
    assert (await harness.bet("b-unknown"))["state"] == "closing"
    assert (await harness.callback(flagged))["state"] == "cancelled"
    [rollback] = await harness.rollbacks("b-unknown")
    assert (rollback["state"], rollback["attempts"]) == ("ready", 0)
    environment.operator.answer = lambda _: None
    await environment.until_all_final()
    assert await harness.state(rollback["request_id"]) == "delivered"
    assert environment.operator.balance["p1"] == 0
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_without_notifications_everything_still_happens_by_looking(environment: Environment) -> None:
    """As behind a pooling proxy: a listener that hears nothing."""
    write_operator(environment, open_s=OPEN_S)
    silent = {"listen_dsn": "postgresql://test_dispatcher@127.0.0.1:1/nowhere"}
    daemons = [await environment.fleet.start(instance, database=silent) for instance in ("host-1", "host-2")]
    owed = await wins(environment, 3)
    await environment.until_all_final()
    await open_circuit(environment, THRESHOLD)
    for daemon in daemons:
        await daemon.until_logged("circuit.opened")
    refused = await environment.harness.place("b-refused")
    await until_final(environment, refused, within_s=3.0)
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed", health="healthy", consecutive_failures=0)
    for daemon in daemons:
        await daemon.until_logged("circuit.closed")
    await environment.harness.place("b-taken")
    await environment.until_all_final(within_s=3.0)
    assert [await environment.harness.state(win) for win in owed] == ["delivered"] * 3
    assert {(await environment.harness.bet(bet))["state"] for bet in ("b-refused", "b-taken")} == {"void", "open"}


# ------------------------------------------------------------------------------------------------------------- the PING


async def test_one_ping_every_open_s_from_the_whole_fleet_and_nothing_else(environment: Environment) -> None:
    write_operator(environment, open_s=OPEN_S)
    for instance in ("host-1", "host-2"):
        await environment.fleet.start(instance)
    await open_circuit(environment, THRESHOLD)
    opened_at_s = (await operator_row(environment))["circuit_since"].timestamp()
    reached = len(others(environment.operator))
    owed = await wins(environment, 5)
    periods = 6
    await until(f"{periods} PINGs", lambda: len(pings(environment.operator)) >= periods)
    arrivals_s = [opened_at_s, *(ping.arrived_at_s for ping in pings(environment.operator))]
    spans_s = [later - sooner for sooner, later in itertools.pairwise(arrivals_s)]
    print_figures(f"from PING to PING: {[round(span, 3) for span in spans_s]} s")
    # Never sooner; later by finding the failure, deciding and claiming, which takes a loaded machine a while.
    assert min(spans_s) > OPEN_S - 0.01
    assert sorted(spans_s)[len(spans_s) // 2] < OPEN_S + OWN_TURN_S
    assert len({ping.request_id for ping in pings(environment.operator)}) == len(pings(environment.operator))
    assert len(others(environment.operator)) == reached
    assert {(await fate_of(environment, win))[::3] for win in owed} == {("ready", 0)}
    assert (await operator_row(environment))["circuit_since"].timestamp() == opened_at_s
    assert environment.operator.faults == []


@pytest.mark.parametrize("fate", ["killed", "frozen"])
async def test_the_daemon_that_has_the_ping_is_lost_and_the_others_go_on_pinging(
    environment: Environment, fate: str
) -> None:
    """The PING's lease runs out, it counts as failed, and the next one comes from whoever is left."""
    write_operator(environment, open_s=OPEN_S)
    daemons = {instance: await environment.fleet.start(instance) for instance in ("host-1", "host-2")}
    await open_circuit(environment, THRESHOLD)
    environment.operator.hold()
    await until("a PING is under way", lambda: environment.operator.live.total() == 1)
    lost = daemons[
        await environment.harness.owner.fetchval(
            "select leased_by from predictu_dispatch.callback where method = 'PING' and state = 'in_flight'"
        )
    ]
    if fate == "killed":
        lost.kill()
    else:
        lost.freeze()
    # The frozen one gets its answer all the same, and it is a good one: from a moment that is long past.
    environment.operator.release()
    before = len(pings(environment.operator))
    await environment.expire_leases(lost.instance)
    await until("three more PINGs", lambda: len(pings(environment.operator)) >= before + 3)
    since = (await operator_row(environment))["circuit_since"]
    if fate == "frozen":
        lost.thaw()
        await lost.until_logged("lease.lost")
    await until_heartbeats_sent(environment, 1)
    assert (await operator_row(environment))["circuit_since"] == since
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed")
    await until_nothing_in_flight(environment)
    assert await environment.audit_faults() == []


async def test_a_half_open_circuit_that_a_dying_daemon_left_behind_is_decided_by_the_next(
    environment: Environment,
) -> None:
    """It died between the starting of the PING and its claim: whoever comes claims that very PING."""
    write_operator(environment, open_s=NEVER_S)
    daemon = await environment.fleet.start("host-1")
    await open_circuit(environment, THRESHOLD)
    daemon.kill()
    left = await environment.harness.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR)
    await until_operator_is(environment, circuit="half_open")
    environment.operator.answer = lambda _: None
    await environment.fleet.start("host-2")
    await until_operator_is(environment, circuit="closed", ping_request_id=left)
    assert [ping.request_id for ping in pings(environment.operator)] == [str(left)]


async def test_a_ping_that_nobody_may_send_ends_by_its_deadline_and_another_one_follows(
    environment: Environment,
) -> None:
    """The only slot is a frozen daemon's: nobody has a share until it is given up, and the PING waits in vain."""
    one_slot = ONE_ATTEMPT | {"max_in_flight": 1, "deadline_s": 0.5, "attempt_timeout_s": 0.4, "connect_timeout_s": 0.4}
    write_operator(environment, open_s=OPEN_S, interactive=one_slot)
    holder = await environment.fleet.start("host-1")
    await environment.fleet.start("host-2")
    await open_circuit(environment, THRESHOLD)
    holder.freeze()
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed", within_s=15.0)
    ended = await environment.harness.owner.fetch(
        "select state, reason from predictu_dispatch.callback where method = 'PING' and attempts = 0"
    )
    assert {tuple(one) for one in ended} <= {("exhausted", "deadline")}
    assert len(pings(environment.operator)) >= 1


# ---------------------------------------------------------------------------------------------------------- coming back


async def test_an_operator_that_is_back_gets_its_backlog_within_a_second_gently_and_all_of_it(
    environment: Environment,
) -> None:
    """What the operator holds at once doubles with each step; then it lets go, and everything comes."""
    count = 40
    write_operator(environment, open_s=OPEN_S)
    await environment.fleet.start("host-1")
    await open_circuit(environment, THRESHOLD)
    owed = await wins(environment, count)
    reached = len(others(environment.operator))

    def answer_pings_and_hold_the_rest(request: Request) -> None:
        if request.method != "PING":
            environment.operator.hold()

    environment.operator.answer = answer_pings_and_hold_the_rest
    await until_operator_is(environment, circuit="closed")
    closed_at_s = (await operator_row(environment))["circuit_since"].timestamp()
    await until("eight at once", lambda: environment.operator.live.total() >= 8)
    arrivals_s = [request.arrived_at_s - closed_at_s for request in others(environment.operator)[reached:]]
    print_figures(f"after the closing: {[round(arrival, 3) for arrival in arrivals_s]} s")
    # The answer itself closes it; that the PING is settled is not waited for.
    assert closed_at_s - pings(environment.operator)[-1].arrived_at_s < OWN_TURN_S
    assert arrivals_s[0] < 1.0
    for held, arrival_s in enumerate(arrivals_s, start=1):
        assert arrival_s > math.ceil(math.log2(held)) * SLOW_START_STEP_S - 0.1, f"{held} at once after {arrival_s} s"
    environment.operator.answer = lambda _: None
    environment.operator.release()
    await environment.until_all_final()
    assert {(await fate_of(environment, win))[::3] for win in owed} == {("delivered", 1)}
    assert (await operator_row(environment))["circuit"] == "closed"
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_a_ping_that_fails_leaves_it_open_and_one_that_is_refused_is_an_answer(environment: Environment) -> None:
    write_operator(environment, open_s=OPEN_S)
    await environment.fleet.start("host-1")
    await open_circuit(environment, THRESHOLD)
    since = (await operator_row(environment))["circuit_since"]
    await until_operator_is(environment, circuit="open", consecutive_failures=THRESHOLD + 2)
    assert (await operator_row(environment))["circuit_since"] == since
    environment.operator.refuse("PLAYER_NOT_FOUND")
    await until_operator_is(environment, circuit="closed", consecutive_failures=0, health="healthy")


async def test_attempts_that_hung_through_all_of_it_do_not_open_it_again(environment: Environment) -> None:
    """They were sent before it opened, and fail after it has closed: that says nothing of now."""
    write_operator(environment, open_s=OPEN_S)
    await environment.fleet.start("host-1")
    environment.operator.answer = failing()
    environment.operator.hold()
    hanging = await wins(environment, THRESHOLD + 1)
    await environment.until_in_flight(len(hanging))
    environment.operator.stop_holding()
    for _ in range(THRESHOLD):
        await enqueue_balance(environment)
    await until_operator_is(environment, circuit="open")
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed")
    since = (await operator_row(environment))["circuit_since"]
    environment.operator.release()
    await until_final(environment, *hanging)
    await until_heartbeats_sent(environment, 2)
    assert (
        (await operator_row(environment))["circuit_since"],
        (await operator_row(environment))["consecutive_failures"],
    ) == (since, 0)


async def test_a_daemon_that_slept_through_all_of_it_does_not_open_it_again(environment: Environment) -> None:
    """It wakes up to a heap of failures, and has not heard yet that the circuit was open and is closed again."""
    write_operator(environment, open_s=OPEN_S)
    sleeper = await environment.fleet.start("host-1")
    environment.operator.answer = failing()
    environment.operator.hold()
    hanging = await wins(environment, THRESHOLD + 1)
    await environment.until_in_flight(len(hanging))
    environment.operator.stop_holding()
    sleeper.freeze()
    await environment.fleet.start("host-2")
    for _ in range(THRESHOLD):
        await enqueue_balance(environment)
    await until_operator_is(environment, circuit="open")
    environment.operator.answer = lambda _: None
    await until_operator_is(environment, circuit="closed")
    since = (await operator_row(environment))["circuit_since"]
    environment.operator.release()
    await until("the answers are on their way", lambda: environment.operator.live.total() == 0)
    sleeper.thaw()
    await until_final(environment, *hanging)
    await until_heartbeats_sent(environment, 1)
    assert (await operator_row(environment))["circuit_since"] == since
    assert sleeper.lines("circuit.opened") == []


# ---------------------------------------------------------------------------------------------------------- Retry-After


def asking_once_for(environment: Environment, code: int, retry_after: Callable[[], str]) -> list[str]:
    """The first BALANCE is asked to come again later, all else is answered; returns what the operator then said."""
    said: list[str] = []

    def answer(request: Request) -> web.Response | None:
        if said or request.method != "BALANCE":
            return None
        said.append(retry_after())
        return web.Response(status=code, headers={"Retry-After": said[0]})

    environment.operator.answer = answer
    return said


def in_three_seconds() -> str:
    """An HTTP date, which has whole seconds only: it is two to three seconds from now."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date", "for a day"])
async def test_an_operator_that_asks_for_time_gets_it_for_the_whole_lane(
    environment: Environment, code: int, form: str
) -> None:
    """One slot, so that the next BALANCE may go the moment the first was answered; the cap is max_delay_s."""
    max_delay_s = 1.5 if form == "for a day" else 60.0
    environment.fleet.write_operator(
        environment.operator.url, interactive={"max_in_flight": 1, "max_delay_s": max_delay_s}
    )
    async with another_operator(environment) as other:
        await environment.fleet.start("host-1")
        said = asking_once_for(
            environment, code, {"seconds": lambda: "1", "date": in_three_seconds, "for a day": lambda: "86400"}[form]
        )
        await environment.adopt("b-won")
        asked = [await enqueue_balance(environment) for _ in range(4)]
        await until("the operator asks for time", lambda: bool(said))
        # Neither the other lane nor another operator is touched by it.
        win = await environment.harness.end("BET_WIN", "b-won")
        elsewhere = await enqueue_balance(environment, OTHER)
        await until_final(environment, win, elsewhere)
        await until_final(environment, *asked)

    first, *later = [request.arrived_at_s for request in environment.operator.requests if request.method == "BALANCE"]
    over_at_s = {
        "seconds": first + 1.0,
        "date": parsedate_to_datetime(said[0]).timestamp() if form == "date" else 0.0,
        "for a day": first + 1.5,
    }[form]
    print_figures(
        f"the hold was over after {over_at_s - first:.3f} s; later ones: {[round(s - first, 3) for s in later]}"
    )
    assert len(later) == len(asked)
    # A date is compared with the host's clock when the answer is judged, and held by the database's.
    assert min(later) >= over_at_s - 0.01
    assert min(later) < over_at_s + OWN_TURN_S + 0.5
    assert environment.operator.sent(win)[0].arrived_at_s < over_at_s
    assert other.sent(elsewhere)[0].arrived_at_s < over_at_s


async def test_it_gets_its_time_though_the_database_never_hears_of_it(environment: Environment) -> None:
    """The daemon that was asked knows it by itself, before the slot is free again."""
    environment.fleet.write_operator(environment.operator.url, interactive={"max_in_flight": 1, "max_delay_s": 60.0})
    async with proxied(environment.fleet.dsn) as proxy:
        await environment.fleet.start("host-1", database={"dsn": proxy.dsn()})
        await until_final(environment, await enqueue_balance(environment))
        await until_operator_is(environment, health="healthy")
        asking_once_for(environment, 429, lambda: "1")
        proxy.on_next(TELL, Trick.LOSE_REQUEST)
        await until_final(environment, *[await enqueue_balance(environment) for _ in range(4)])
        assert (await operator_row(environment))["interactive_backoff_until"] is None
    _, first, *later = [request.arrived_at_s for request in environment.operator.requests]
    assert min(later) >= first + 1.0


async def test_the_whole_fleet_leaves_the_lane_alone(environment: Environment) -> None:
    environment.fleet.write_operator(environment.operator.url, interactive={"max_in_flight": 2, "max_delay_s": 60.0})
    for instance in ("host-1", "host-2"):
        await environment.fleet.start(instance)
    await until_heartbeats_sent(environment, 2)
    said = asking_once_for(environment, 429, lambda: "2")
    asked = [await enqueue_balance(environment) for _ in range(40)]
    await until("the operator asks for time", lambda: bool(said))
    await until_final(environment, *asked)
    first, *later = [request.arrived_at_s for request in environment.operator.requests]
    soon = [arrival for arrival in later if arrival < first + 2.0]
    print_figures(f"after the answer still came {len(soon)}: {[round((s - first) * 1000) for s in soon]} ms")
    # The other daemon hears of it by a notification, and sends what it has claimed until then.
    assert max(soon, default=first) < first + OWN_TURN_S
    rows = await environment.harness.owner.fetch("select distinct instance from predictu_dispatch.attempt")
    assert {found["instance"] for found in rows} == {"host-1", "host-2"}


# ------------------------------------------------------------------------------------------------------------- its cost


@pytest.mark.parametrize("situation", ["well, with traffic", "open", "its row is locked", "sixty others are pinged"])
async def test_the_monitor_asks_the_database_about_once_a_second(
    environment: Environment, database: Database, situation: str
) -> None:
    looks = 3
    others = [f"op_{n}" for n in range(60)] if situation == "sixty others are pinged" else []
    environment.fleet.write_operator(
        environment.operator.url,
        interactive=ONE_ATTEMPT,
        circuit={"failure_threshold": THRESHOLD, "open_s": NEVER_S},
        # Nor does a PING's answer make news, of itself or of whatever comes after it.
        health={"ping_interval_s": 2.0 if situation == "well, with traffic" or others else 0.2},
    )
    for other in others:
        environment.fleet.write_operator(environment.operator.url, operator_id=other, health={"ping_interval_s": 10.0})
    async with (
        proxied(environment.fleet.dsn) as proxy,
        connected(database.owner, 1) as [holder],
        outcomes(database.owner) as heard,
    ):
        await environment.fleet.start("host-1", database={"dsn": proxy.dsn()})
        await until_operator_is(environment, health="healthy")
        if situation == "open":
            await open_circuit(environment, THRESHOLD)
        for other in others:
            # Each at a moment of its own, as of operators that came one by one.
            await until_operator_is(environment, operator_id=other, health="healthy")
            await holder.execute(
                "update predictu_dispatch.operator set ping_at = now() + random() * interval '10 s',"
                " revision = revision + 1 where operator_id = $1",
                other,
            )
        async with holder.transaction():
            if situation == "its row is locked":
                await holder.execute("select from predictu_dispatch.operator for update")
            asked_before = proxy.runs(LOOK)
            looking = asyncio.create_task(until_heartbeats_sent(environment, looks))
            balances = 0
            while situation == "well, with traffic" and not looking.done():
                await heard.of(await enqueue_balance(environment))
                balances += 1
            await looking
            asked = proxy.runs(LOOK) - asked_before
    print_figures(f"{situation}: {asked} questions in {looks} to {looks + 2} s, {balances} callbacks")
    assert asked < 20


# ----------------------------------------------------------------------------------------------- in the database itself


async def be(harness: Harness, **columns: object) -> None:
    """Updates every operator's row; `columns` are SQL."""
    changes = ", ".join(f"{name} = {text}" for name, text in columns.items())
    await harness.owner.execute(f"update predictu_dispatch.operator set {changes}, revision = revision + 1")  # noqa: S608


async def claimed(harness: Harness, *request_ids: UUID | None) -> set[UUID | None]:
    """Which of these a daemon gets now that knows nothing and asks for everything; they are ready again afterwards."""
    leases = await claim(harness.daemon)
    await settle_all(harness.daemon, *(retried(lease) for lease in leases))
    assert {lease["request_id"] for lease in leases} <= set(request_ids)
    return {lease["request_id"] for lease in leases}


async def test_whatever_a_daemon_believes_the_claim_leaves_alone_whom_it_must(harness: Harness) -> None:
    """A daemon may be a second behind: what counts is what the claim itself finds."""
    place, balance = await harness.place("b-1"), await enqueue(harness.producer, "BALANCE", BALANCE)
    await harness.owner.execute(
        "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
        " placement_request_id) values ($1, 'b-2', 'open', 'p1', 'EUR', 500, gen_random_uuid())",
        OPERATOR,
    )
    win = await harness.end("BET_WIN", "b-2")
    every = (place, balance, win)
    assert await claimed(harness, *every) == set(every)
    await be(harness, circuit="'open'")
    assert await claimed(harness, *every) == set()
    ping = await harness.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR)
    circuits = await harness.owner.fetch("select operator_id, circuit from predictu_dispatch.operator")
    assert {found["operator_id"]: found["circuit"] for found in circuits} == {OPERATOR: "half_open", DISABLED: "open"}
    [lease] = await claim(harness.daemon)
    assert (lease["request_id"], lease["method"]) == (ping, "PING")
    # One is under way; whoever starts another gets that one.
    assert await harness.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR) == ping
    assert await claimed(harness) == set()
    await harness.settle(delivered(lease))
    await be(harness, circuit="'closed'", interactive_backoff_until="now() + interval '1 hour'")
    assert await claimed(harness, *every) == {win}
    await be(harness, interactive_backoff_until="null", settlement_backoff_until="now() + interval '1 hour'")
    assert await claimed(harness, *every) == {place, balance}
    await be(
        harness,
        settlement_backoff_until="now() - interval '1 second'",
        paused_at="now()",
        paused_by="'a'",
        pause_reason="'b'",
    )
    assert await claimed(harness, *every) == set()
    await be(harness, paused_at="null", paused_by="null", pause_reason="null")
    assert await claimed(harness, *every) == set(every)


async def test_of_two_decisions_on_the_same_row_one_is_written_and_starts_the_ping(harness: Harness) -> None:
    """Two daemons have read the same revision; the second looks again, and finds that the PING is under way."""

    async def written(revision: int) -> bool:
        rows = await harness.daemon.fetch(
            query("write_circuits"),
            *([OPERATOR], [revision], ["open"], ["down"], [THRESHOLD], [None], [0.0], [OPEN_S], [True], [None], [None]),
        )
        return bool(rows)

    async def revision() -> int:
        return int(
            await harness.owner.fetchval(
                "select revision from predictu_dispatch.operator where operator_id = $1", OPERATOR
            )
        )

    read = await revision()
    assert await written(read)
    assert not await written(read)
    assert await revision() > read
    started = await harness.owner.fetch("select method, state from predictu_dispatch.callback")
    assert [tuple(found) for found in started] == [("PING", "ready")]
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.operator for update")
        # Held by a person: nobody waits for it, and nothing is lost.
        assert not await written(await revision())
    assert await written(await revision())
