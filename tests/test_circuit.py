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
from predictu_dispatch.edge.sql_files import query
from tests.support.circuits import (
    ONE_ATTEMPT,
    OWN_TURN_S,
    ask_balance,
    becomes,
    failing,
    has_ended,
    looks_on,
    nothing_in_flight,
    open_circuit,
    others,
    outcomes,
    pings,
    row,
    tell,
)
from tests.support.daemons import until
from tests.support.ledger import DISABLED, OPERATOR, Ledger, claim, connected, delivered, enqueue, retried, settle_all
from tests.support.operators import Request
from tests.support.postgres import Database
from tests.support.postgres_proxy import Trick, proxied
from tests.support.stage import OTHER, Stage, another_operator, open_stage

THRESHOLD = 3
NEVER_S = 600.0
"""Longer than any test: nobody looks whether the operator is back."""
OPEN_S = 0.5
BALANCE = {"player_id": "p1", "currency": "EUR"}
LOOK, TELL = "as ping_state", "predictu_dispatch.write_circuits("
"""What the monitor asks and writes, as the proxy knows it."""


@pytest.fixture
async def stage(tmp_path: Path, database: Database) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, database) as stage:
        yield stage


def write_operator(stage: Stage, *, open_s: float, **sections: Any) -> None:
    """The circuit opens after THRESHOLD failures; each BALANCE and BET_MAKE is one attempt unless told otherwise."""
    settings: dict[str, Any] = {"interactive": ONE_ATTEMPT, **sections}
    circuit = {"failure_threshold": THRESHOLD, "open_s": open_s}
    stage.fleet.write_operator(stage.operator.url, circuit=circuit, **settings)


async def wins(stage: Stage, count: int) -> list[UUID]:
    """So many bets of before are won."""
    for n in range(count):
        await stage.adopt(f"won-{n}")
    return [await stage.ledger.end("BET_WIN", f"won-{n}") for n in range(count)]


async def fate_of(stage: Stage, request_id: UUID) -> tuple[str, str | None, str, int]:
    """State, reason, effect and attempts of the callback."""
    callback = await stage.ledger.callback(request_id)
    return callback["state"], callback["reason"], callback["effect"], callback["attempts"]


# -------------------------------------------------------------------------------------------------------------- opening


@pytest.mark.parametrize("code", [500, 401, 404])
async def test_failures_in_a_row_open_the_circuit_and_everybody_can_see_it(stage: Stage, code: int) -> None:
    """A wrong key or a wrong address is a failure too, whoever's mistake it is."""
    write_operator(stage, open_s=NEVER_S)
    daemon = await stage.fleet.start("host-1")
    await has_ended(stage, await ask_balance(stage))
    stage.operator.answer = failing(code)
    for _ in range(THRESHOLD - 1):
        await has_ended(stage, await ask_balance(stage))
    await becomes(stage, circuit="closed", health="degraded", consecutive_failures=THRESHOLD - 1)
    await has_ended(stage, await ask_balance(stage))
    await becomes(stage, circuit="open", health="down", consecutive_failures=THRESHOLD, within_s=OWN_TURN_S)
    seen = await row(stage)
    assert seen["last_success_at"] < seen["last_failure_at"] <= seen["circuit_since"] < seen["ping_at"]
    await daemon.has_said("circuit.opened")
    assert await daemon.figure("circuit_open", OPERATOR) == 1
    assert await daemon.figure("operator_up", OPERATOR) == 0


async def test_a_business_refusal_is_an_answer_and_the_row_of_failures_begins_anew(stage: Stage) -> None:
    write_operator(stage, open_s=NEVER_S)
    await stage.fleet.start("host-1")

    async def balances(count: int, answer: Callable[[Request], web.Response | None]) -> None:
        stage.operator.answer = answer
        for _ in range(count):
            await has_ended(stage, await ask_balance(stage))

    await balances(THRESHOLD - 1, failing())
    await balances(1, lambda _: web.json_response({"status": "PLAYER_NOT_FOUND"}))
    await balances(THRESHOLD - 1, failing())
    # Being asked to slow down is neither an answer nor an outage.
    await balances(THRESHOLD, failing(429))
    await becomes(stage, circuit="closed", consecutive_failures=THRESHOLD - 1)
    await balances(1, failing())
    await becomes(stage, circuit="open", within_s=OWN_TURN_S)


async def test_failures_that_two_daemons_saw_add_up(stage: Stage) -> None:
    """Neither has seen enough by itself; each has two slots, and all four attempts fail at once."""
    stage.fleet.write_operator(
        stage.operator.url,
        interactive=ONE_ATTEMPT | {"max_in_flight": 4},
        circuit={"failure_threshold": 4, "open_s": NEVER_S},
    )
    for instance in ("host-1", "host-2"):
        await stage.fleet.start(instance)
    await looks_on(stage, 2)
    stage.operator.answer = failing()
    stage.operator.hold()
    asked = [await ask_balance(stage) for _ in range(4)]
    await stage.held(4)
    leased = await stage.ledger.owner.fetch(
        "select leased_by, count(*) from predictu_dispatch.callback where state = 'in_flight' group by leased_by"
    )
    assert {lease["leased_by"]: lease["count"] for lease in leased} == {"host-1": 2, "host-2": 2}
    stage.operator.release()
    await has_ended(stage, *asked)
    # Below its own threshold, each tells at its next look.
    await becomes(stage, circuit="open", consecutive_failures=4, within_s=2.0)


async def test_an_old_success_does_not_wipe_out_what_another_daemon_has_seen_fail_since(stage: Stage) -> None:
    """It was heard, and changed nothing then; told again at each look, it would keep the circuit closed for ever."""
    write_operator(stage, open_s=NEVER_S)
    await stage.fleet.start("host-1")
    await has_ended(stage, await ask_balance(stage))
    await becomes(stage, health="healthy")
    await has_ended(stage, await ask_balance(stage))
    await looks_on(stage, 1)
    await stage.ledger.owner.execute(
        "update predictu_dispatch.operator set consecutive_failures = 2, health = 'degraded', revision = revision + 1"
    )
    await looks_on(stage, 2)
    assert (await row(stage))["consecutive_failures"] == 2


# ----------------------------------------------------------------------------------------------------------- while open


async def test_while_it_is_open_bets_end_at_once_and_what_is_owed_waits(stage: Stage, database: Database) -> None:
    """Two daemons, one of which has made no attempt itself: nothing reaches the operator from either of them."""
    write_operator(stage, open_s=NEVER_S)
    await stage.fleet.start("host-1")
    await stage.adopt("b-to-roll-back")
    await stage.adopt("b-to-pay")
    await open_circuit(stage, THRESHOLD)
    reached = len(stage.operator.requests)
    await stage.fleet.start("host-2")

    rollback = await stage.ledger.rollback("b-to-roll-back")
    win = await stage.ledger.end("BET_WIN", "b-to-pay")
    took_ms = []
    async with outcomes(database.owner) as heard:
        for n in range(10):
            enqueued = await (stage.ledger.place(f"b-{n}") if n % 2 else ask_balance(stage))
            committed_at_s = time.monotonic()
            took_ms.append((await heard.of(enqueued) - committed_at_s) * 1000)
            assert await fate_of(stage, enqueued) == ("exhausted", "circuit_open", "none", 0)
    tell(f"commit to outcome: {sorted(round(ms, 1) for ms in took_ms)} ms")
    # The median is a few milliseconds; a reaper that was not told looks every half second.
    assert sorted(took_ms)[5] < 250
    assert max(took_ms) < 1000
    assert [(await stage.ledger.bet(f"b-{n}"))["state"] for n in range(1, 10, 2)] == ["void"] * 5
    await looks_on(stage, 2)
    assert rollback is not None
    for waiting in (rollback, win):
        assert (await fate_of(stage, waiting))[::3] == ("ready", 0)
    assert len(stage.operator.requests) == reached


async def test_what_waits_for_a_retry_when_it_opens_ends_at_once_and_a_debit_that_may_stand_is_taken_back(
    stage: Stage, database: Database
) -> None:
    write_operator(stage, open_s=OPEN_S)
    ledger = stage.ledger
    # From before: attempted and due again in a minute.
    unknown = await ledger.place("b-unknown")
    await ledger.attempt(unknown, retried, due_in_s=60.0)
    never_left = await ledger.place("b-never-left")
    await ledger.attempt(never_left, retried, due_in_s=60.0, effect="none", evidence="not_sent")
    balance = await ask_balance(stage)
    await ledger.attempt(balance, retried, due_in_s=60.0)
    flagged = await ledger.end("BET_WIN", "b-unknown")
    stage.operator.book("b-unknown", str(unknown), "p1", 500)

    await stage.fleet.start("host-1")
    async with outcomes(database.owner) as heard:
        await open_circuit(stage, THRESHOLD)
        for ended, effect in ((unknown, "unknown"), (never_left, "none"), (balance, "unknown")):
            await heard.of(ended, within_s=OWN_TURN_S)
            assert await fate_of(stage, ended) == ("exhausted", "circuit_open", effect, 1)
    assert (await ledger.bet("b-never-left"))["state"] == "void"
    assert (await ledger.bet("b-unknown"))["state"] == "closing"
    assert (await ledger.callback(flagged))["state"] == "cancelled"
    [rollback] = await ledger.rollbacks("b-unknown")
    assert (rollback["state"], rollback["attempts"]) == ("ready", 0)
    stage.operator.answer = lambda _: None
    await stage.all_final()
    assert await ledger.state(rollback["request_id"]) == "delivered"
    assert stage.operator.balance["p1"] == 0
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_without_notifications_everything_still_happens_by_looking(stage: Stage) -> None:
    """As behind a pooling proxy: a listener that hears nothing."""
    write_operator(stage, open_s=OPEN_S)
    silent = {"listen_dsn": "postgresql://test_dispatcher@127.0.0.1:1/nowhere"}
    daemons = [await stage.fleet.start(instance, database=silent) for instance in ("host-1", "host-2")]
    owed = await wins(stage, 3)
    await stage.all_final()
    await open_circuit(stage, THRESHOLD)
    for daemon in daemons:
        await daemon.has_said("circuit.opened")
    refused = await stage.ledger.place("b-refused")
    await has_ended(stage, refused, within_s=3.0)
    stage.operator.answer = lambda _: None
    await becomes(stage, circuit="closed", health="healthy", consecutive_failures=0)
    for daemon in daemons:
        await daemon.has_said("circuit.closed")
    await stage.ledger.place("b-taken")
    await stage.all_final(within_s=3.0)
    assert [await stage.ledger.state(win) for win in owed] == ["delivered"] * 3
    assert {(await stage.ledger.bet(bet))["state"] for bet in ("b-refused", "b-taken")} == {"void", "open"}


# ------------------------------------------------------------------------------------------------------------- the PING


async def test_one_ping_every_open_s_from_the_whole_fleet_and_nothing_else(stage: Stage) -> None:
    write_operator(stage, open_s=OPEN_S)
    for instance in ("host-1", "host-2"):
        await stage.fleet.start(instance)
    await open_circuit(stage, THRESHOLD)
    opened_at_s = (await row(stage))["circuit_since"].timestamp()
    reached = len(others(stage.operator))
    owed = await wins(stage, 5)
    periods = 6
    await until(f"{periods} PINGs", lambda: len(pings(stage.operator)) >= periods)
    arrivals_s = [opened_at_s, *(ping.arrived_at_s for ping in pings(stage.operator))]
    spans_s = [later - sooner for sooner, later in itertools.pairwise(arrivals_s)]
    tell(f"from PING to PING: {[round(span, 3) for span in spans_s]} s")
    # Never sooner; later by finding the failure, deciding and claiming, which takes a loaded machine a while.
    assert min(spans_s) > OPEN_S - 0.01
    assert sorted(spans_s)[len(spans_s) // 2] < OPEN_S + OWN_TURN_S
    assert len({ping.request_id for ping in pings(stage.operator)}) == len(pings(stage.operator))
    assert len(others(stage.operator)) == reached
    assert {(await fate_of(stage, win))[::3] for win in owed} == {("ready", 0)}
    assert (await row(stage))["circuit_since"].timestamp() == opened_at_s
    assert stage.operator.faults == []


@pytest.mark.parametrize("fate", ["killed", "frozen"])
async def test_the_daemon_that_has_the_ping_is_lost_and_the_others_go_on_pinging(stage: Stage, fate: str) -> None:
    """The PING's lease runs out, it counts as failed, and the next one comes from whoever is left."""
    write_operator(stage, open_s=OPEN_S)
    daemons = {instance: await stage.fleet.start(instance) for instance in ("host-1", "host-2")}
    await open_circuit(stage, THRESHOLD)
    stage.operator.hold()
    await until("a PING is under way", lambda: stage.operator.live.total() == 1)
    lost = daemons[
        await stage.ledger.owner.fetchval(
            "select leased_by from predictu_dispatch.callback where method = 'PING' and state = 'in_flight'"
        )
    ]
    if fate == "killed":
        lost.kill()
    else:
        lost.freeze()
    # The frozen one gets its answer all the same, and it is a good one: from a moment that is long past.
    stage.operator.release()
    before = len(pings(stage.operator))
    await stage.expire_leases(lost.instance)
    await until("three more PINGs", lambda: len(pings(stage.operator)) >= before + 3)
    since = (await row(stage))["circuit_since"]
    if fate == "frozen":
        lost.thaw()
        await lost.has_said("attempt.late")
    await looks_on(stage, 1)
    assert (await row(stage))["circuit_since"] == since
    stage.operator.answer = lambda _: None
    await becomes(stage, circuit="closed")
    await nothing_in_flight(stage)
    assert await stage.audit_faults() == []


async def test_a_half_open_circuit_that_a_dying_daemon_left_behind_is_decided_by_the_next(stage: Stage) -> None:
    """It died between the starting of the PING and its claim: whoever comes claims that very PING."""
    write_operator(stage, open_s=NEVER_S)
    daemon = await stage.fleet.start("host-1")
    await open_circuit(stage, THRESHOLD)
    daemon.kill()
    left = await stage.ledger.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR)
    await becomes(stage, circuit="half_open")
    stage.operator.answer = lambda _: None
    await stage.fleet.start("host-2")
    await becomes(stage, circuit="closed", ping_request_id=left)
    assert [ping.request_id for ping in pings(stage.operator)] == [str(left)]


async def test_a_ping_that_nobody_may_send_ends_by_its_deadline_and_another_one_follows(stage: Stage) -> None:
    """The only slot is a frozen daemon's: nobody has a share until it is given up, and the PING waits in vain."""
    one_slot = ONE_ATTEMPT | {"max_in_flight": 1, "deadline_s": 0.5, "attempt_timeout_s": 0.4, "connect_timeout_s": 0.4}
    write_operator(stage, open_s=OPEN_S, interactive=one_slot)
    holder = await stage.fleet.start("host-1")
    await stage.fleet.start("host-2")
    await open_circuit(stage, THRESHOLD)
    holder.freeze()
    stage.operator.answer = lambda _: None
    await becomes(stage, circuit="closed", within_s=15.0)
    ended = await stage.ledger.owner.fetch(
        "select state, reason from predictu_dispatch.callback where method = 'PING' and attempts = 0"
    )
    assert {tuple(one) for one in ended} <= {("exhausted", "deadline")}
    assert len(pings(stage.operator)) >= 1


# ---------------------------------------------------------------------------------------------------------- coming back


async def test_an_operator_that_is_back_gets_its_backlog_within_a_second_gently_and_all_of_it(stage: Stage) -> None:
    """What the operator holds at once doubles with each step; then it lets go, and everything comes."""
    count = 40
    write_operator(stage, open_s=OPEN_S)
    await stage.fleet.start("host-1")
    await open_circuit(stage, THRESHOLD)
    owed = await wins(stage, count)
    reached = len(others(stage.operator))

    def answer_pings_and_hold_the_rest(request: Request) -> None:
        if request.method != "PING":
            stage.operator.hold()

    stage.operator.answer = answer_pings_and_hold_the_rest
    await becomes(stage, circuit="closed")
    closed_at_s = (await row(stage))["circuit_since"].timestamp()
    await until("eight at once", lambda: stage.operator.live.total() >= 8)
    arrivals_s = [request.arrived_at_s - closed_at_s for request in others(stage.operator)[reached:]]
    tell(f"after the closing: {[round(arrival, 3) for arrival in arrivals_s]} s")
    # The answer itself closes it; that the PING is settled is not waited for.
    assert closed_at_s - pings(stage.operator)[-1].arrived_at_s < OWN_TURN_S
    assert arrivals_s[0] < 1.0
    for held, arrival_s in enumerate(arrivals_s, start=1):
        assert arrival_s > math.ceil(math.log2(held)) * SLOW_START_STEP_S - 0.1, f"{held} at once after {arrival_s} s"
    stage.operator.answer = lambda _: None
    stage.operator.release()
    await stage.all_final()
    assert {(await fate_of(stage, win))[::3] for win in owed} == {("delivered", 1)}
    assert (await row(stage))["circuit"] == "closed"
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_a_ping_that_fails_leaves_it_open_and_one_that_is_refused_is_an_answer(stage: Stage) -> None:
    write_operator(stage, open_s=OPEN_S)
    await stage.fleet.start("host-1")
    await open_circuit(stage, THRESHOLD)
    since = (await row(stage))["circuit_since"]
    await becomes(stage, circuit="open", consecutive_failures=THRESHOLD + 2)
    assert (await row(stage))["circuit_since"] == since
    stage.operator.refuse("PLAYER_NOT_FOUND")
    await becomes(stage, circuit="closed", consecutive_failures=0, health="healthy")


async def test_attempts_that_hung_through_all_of_it_do_not_open_it_again(stage: Stage) -> None:
    """They were sent before it opened, and fail after it has closed: that says nothing of now."""
    write_operator(stage, open_s=OPEN_S)
    await stage.fleet.start("host-1")
    stage.operator.answer = failing()
    stage.operator.hold()
    hanging = await wins(stage, THRESHOLD + 1)
    await stage.held(len(hanging))
    stage.operator.go_on()
    for _ in range(THRESHOLD):
        await ask_balance(stage)
    await becomes(stage, circuit="open")
    stage.operator.answer = lambda _: None
    await becomes(stage, circuit="closed")
    since = (await row(stage))["circuit_since"]
    stage.operator.release()
    await has_ended(stage, *hanging)
    await looks_on(stage, 2)
    assert ((await row(stage))["circuit_since"], (await row(stage))["consecutive_failures"]) == (since, 0)


async def test_a_daemon_that_slept_through_all_of_it_does_not_open_it_again(stage: Stage) -> None:
    """It wakes up to a heap of failures, and has not heard yet that the circuit was open and is closed again."""
    write_operator(stage, open_s=OPEN_S)
    sleeper = await stage.fleet.start("host-1")
    stage.operator.answer = failing()
    stage.operator.hold()
    hanging = await wins(stage, THRESHOLD + 1)
    await stage.held(len(hanging))
    stage.operator.go_on()
    sleeper.freeze()
    await stage.fleet.start("host-2")
    for _ in range(THRESHOLD):
        await ask_balance(stage)
    await becomes(stage, circuit="open")
    stage.operator.answer = lambda _: None
    await becomes(stage, circuit="closed")
    since = (await row(stage))["circuit_since"]
    stage.operator.release()
    await until("the answers are on their way", lambda: stage.operator.live.total() == 0)
    sleeper.thaw()
    await has_ended(stage, *hanging)
    await looks_on(stage, 1)
    assert (await row(stage))["circuit_since"] == since
    assert sleeper.lines("circuit.opened") == []


# ---------------------------------------------------------------------------------------------------------- Retry-After


def asking_once_for(stage: Stage, code: int, retry_after: Callable[[], str]) -> list[str]:
    """The first BALANCE is asked to come again later, all else is answered; returns what the operator then said."""
    said: list[str] = []

    def answer(request: Request) -> web.Response | None:
        if said or request.method != "BALANCE":
            return None
        said.append(retry_after())
        return web.Response(status=code, headers={"Retry-After": said[0]})

    stage.operator.answer = answer
    return said


def in_three_seconds() -> str:
    """An HTTP date, which has whole seconds only: it is two to three seconds from now."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date", "for a day"])
async def test_an_operator_that_asks_for_time_gets_it_for_the_whole_lane(stage: Stage, code: int, form: str) -> None:
    """One slot, so that the next BALANCE may go the moment the first was answered; the cap is max_delay_s."""
    max_delay_s = 1.5 if form == "for a day" else 60.0
    stage.fleet.write_operator(stage.operator.url, interactive={"max_in_flight": 1, "max_delay_s": max_delay_s})
    async with another_operator(stage) as other:
        await stage.fleet.start("host-1")
        said = asking_once_for(
            stage, code, {"seconds": lambda: "1", "date": in_three_seconds, "for a day": lambda: "86400"}[form]
        )
        await stage.adopt("b-won")
        asked = [await ask_balance(stage) for _ in range(4)]
        await until("the operator asks for time", lambda: bool(said))
        # Neither the other lane nor another operator is touched by it.
        win = await stage.ledger.end("BET_WIN", "b-won")
        elsewhere = await ask_balance(stage, OTHER)
        await has_ended(stage, win, elsewhere)
        await has_ended(stage, *asked)

    first, *later = [request.arrived_at_s for request in stage.operator.requests if request.method == "BALANCE"]
    over_at_s = {
        "seconds": first + 1.0,
        "date": parsedate_to_datetime(said[0]).timestamp() if form == "date" else 0.0,
        "for a day": first + 1.5,
    }[form]
    tell(f"the hold was over after {over_at_s - first:.3f} s; later ones: {[round(s - first, 3) for s in later]}")
    assert len(later) == len(asked)
    # A date is compared with the host's clock when the answer is judged, and held by the database's.
    assert min(later) >= over_at_s - 0.01
    assert min(later) < over_at_s + OWN_TURN_S + 0.5
    assert stage.operator.sent(win)[0].arrived_at_s < over_at_s
    assert other.sent(elsewhere)[0].arrived_at_s < over_at_s


async def test_it_gets_its_time_though_the_database_never_hears_of_it(stage: Stage) -> None:
    """The daemon that was asked knows it by itself, before the slot is free again."""
    stage.fleet.write_operator(stage.operator.url, interactive={"max_in_flight": 1, "max_delay_s": 60.0})
    async with proxied(stage.fleet.dsn) as proxy:
        await stage.fleet.start("host-1", database={"dsn": proxy.dsn()})
        await has_ended(stage, await ask_balance(stage))
        await becomes(stage, health="healthy")
        asking_once_for(stage, 429, lambda: "1")
        proxy.on_next(TELL, Trick.LOSE_REQUEST)
        await has_ended(stage, *[await ask_balance(stage) for _ in range(4)])
        assert (await row(stage))["interactive_held_until"] is None
    _, first, *later = [request.arrived_at_s for request in stage.operator.requests]
    assert min(later) >= first + 1.0


async def test_the_whole_fleet_leaves_the_lane_alone(stage: Stage) -> None:
    stage.fleet.write_operator(stage.operator.url, interactive={"max_in_flight": 2, "max_delay_s": 60.0})
    for instance in ("host-1", "host-2"):
        await stage.fleet.start(instance)
    await looks_on(stage, 2)
    said = asking_once_for(stage, 429, lambda: "2")
    asked = [await ask_balance(stage) for _ in range(40)]
    await until("the operator asks for time", lambda: bool(said))
    await has_ended(stage, *asked)
    first, *later = [request.arrived_at_s for request in stage.operator.requests]
    soon = [arrival for arrival in later if arrival < first + 2.0]
    tell(f"after the answer still came {len(soon)}: {[round((s - first) * 1000) for s in soon]} ms")
    # The other daemon hears of it by a notification, and sends what it has claimed until then.
    assert max(soon, default=first) < first + OWN_TURN_S
    rows = await stage.ledger.owner.fetch("select distinct instance from predictu_dispatch.attempt")
    assert {found["instance"] for found in rows} == {"host-1", "host-2"}


# ------------------------------------------------------------------------------------------------------------- its cost


@pytest.mark.parametrize("situation", ["well, with traffic", "open", "its row is held", "sixty others are pinged"])
async def test_the_monitor_asks_the_database_about_once_a_second(
    stage: Stage, database: Database, situation: str
) -> None:
    looks = 3
    others = [f"op_{n}" for n in range(60)] if situation == "sixty others are pinged" else []
    stage.fleet.write_operator(
        stage.operator.url,
        interactive=ONE_ATTEMPT,
        circuit={"failure_threshold": THRESHOLD, "open_s": NEVER_S},
        # Nor does a PING's answer make news, of itself or of whatever comes after it.
        health={"ping_interval_s": 2.0 if situation == "well, with traffic" or others else 0.2},
    )
    for other in others:
        stage.fleet.write_operator(stage.operator.url, operator_id=other, health={"ping_interval_s": 10.0})
    async with (
        proxied(stage.fleet.dsn) as proxy,
        connected(database.owner, 1) as [holder],
        outcomes(database.owner) as heard,
    ):
        await stage.fleet.start("host-1", database={"dsn": proxy.dsn()})
        await becomes(stage, health="healthy")
        if situation == "open":
            await open_circuit(stage, THRESHOLD)
        for other in others:
            # Each at a moment of its own, as of operators that came one by one.
            await becomes(stage, operator_id=other, health="healthy")
            await holder.execute(
                "update predictu_dispatch.operator set ping_at = now() + random() * interval '10 s',"
                " revision = revision + 1 where operator_id = $1",
                other,
            )
        async with holder.transaction():
            if situation == "its row is held":
                await holder.execute("select from predictu_dispatch.operator for update")
            asked_before = proxy.runs(LOOK)
            looking = asyncio.create_task(looks_on(stage, looks))
            balances = 0
            while situation == "well, with traffic" and not looking.done():
                await heard.of(await ask_balance(stage))
                balances += 1
            await looking
            asked = proxy.runs(LOOK) - asked_before
    tell(f"{situation}: {asked} questions in {looks} to {looks + 2} s, {balances} callbacks")
    assert asked < 20


# ----------------------------------------------------------------------------------------------- in the database itself


async def be(ledger: Ledger, **columns: object) -> None:
    """Every operator's row is so; `columns` are SQL."""
    changes = ", ".join(f"{name} = {text}" for name, text in columns.items())
    await ledger.owner.execute(f"update predictu_dispatch.operator set {changes}, revision = revision + 1")  # noqa: S608


async def claimed(ledger: Ledger, *request_ids: UUID | None) -> set[UUID | None]:
    """Which of these a daemon gets now that knows nothing and asks for everything; they are ready again afterwards."""
    leases = await claim(ledger.daemon)
    await settle_all(ledger.daemon, *(retried(lease) for lease in leases))
    assert {lease["request_id"] for lease in leases} <= set(request_ids)
    return {lease["request_id"] for lease in leases}


async def test_whatever_a_daemon_believes_the_claim_leaves_alone_whom_it_must(ledger: Ledger) -> None:
    """A daemon may be a second behind: what counts is what the claim itself finds."""
    place, balance = await ledger.place("b-1"), await enqueue(ledger.producer, "BALANCE", BALANCE)
    await ledger.owner.execute(
        "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
        " placement_request_id) values ($1, 'b-2', 'open', 'p1', 'EUR', 500, gen_random_uuid())",
        OPERATOR,
    )
    win = await ledger.end("BET_WIN", "b-2")
    every = (place, balance, win)
    assert await claimed(ledger, *every) == set(every)
    await be(ledger, circuit="'open'")
    assert await claimed(ledger, *every) == set()
    ping = await ledger.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR)
    circuits = await ledger.owner.fetch("select operator_id, circuit from predictu_dispatch.operator")
    assert {found["operator_id"]: found["circuit"] for found in circuits} == {OPERATOR: "half_open", DISABLED: "open"}
    [lease] = await claim(ledger.daemon)
    assert (lease["request_id"], lease["method"]) == (ping, "PING")
    # One is under way; whoever starts another gets that one.
    assert await ledger.owner.fetchval("select predictu_dispatch.start_ping($1)", OPERATOR) == ping
    assert await claimed(ledger) == set()
    await ledger.settle(delivered(lease))
    await be(ledger, circuit="'closed'", interactive_held_until="now() + interval '1 hour'")
    assert await claimed(ledger, *every) == {win}
    await be(ledger, interactive_held_until="null", settlement_held_until="now() + interval '1 hour'")
    assert await claimed(ledger, *every) == {place, balance}
    await be(
        ledger,
        settlement_held_until="now() - interval '1 second'",
        paused_at="now()",
        paused_by="'a'",
        pause_reason="'b'",
    )
    assert await claimed(ledger, *every) == set()
    await be(ledger, paused_at="null", paused_by="null", pause_reason="null")
    assert await claimed(ledger, *every) == set(every)


async def test_of_two_decisions_on_the_same_row_one_is_written_and_starts_the_ping(ledger: Ledger) -> None:
    """Two daemons have read the same revision; the second looks again, and finds that the PING is under way."""

    async def written(revision: int) -> bool:
        rows = await ledger.daemon.fetch(
            query("write_circuits"),
            *([OPERATOR], [revision], ["open"], ["down"], [THRESHOLD], [None], [0.0], [OPEN_S], [True], [None], [None]),
        )
        return bool(rows)

    async def revision() -> int:
        return int(
            await ledger.owner.fetchval(
                "select revision from predictu_dispatch.operator where operator_id = $1", OPERATOR
            )
        )

    read = await revision()
    assert await written(read)
    assert not await written(read)
    assert await revision() > read
    started = await ledger.owner.fetch("select method, state from predictu_dispatch.callback")
    assert [tuple(found) for found in started] == [("PING", "ready")]
    async with ledger.owner.transaction():
        await ledger.owner.execute("select from predictu_dispatch.operator for update")
        # Held by a person: nobody waits for it, and nothing is lost.
        assert not await written(await revision())
    assert await written(await revision())
