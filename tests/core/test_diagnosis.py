"""Why a callback is not being sent: the reasons as a truth table, and claim() and expire() as their judges."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from predictu_dispatch.commands.why_words import said
from predictu_dispatch.core.breaker import Circuit
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.diagnosis import Code, reasons
from predictu_dispatch.core.diagnosis_facts import (
    CallbackFacts,
    DaemonFacts,
    Facts,
    FileFacts,
    FileState,
    LastIntervention,
    OperatorFacts,
    OtherCallback,
    RowLocker,
)
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import RULES, Method
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.diagnosis_facts import callbacks_with_id, facts_of
from tests.support.harness import OPERATOR, Harness, claim
from tests.support.postgres import Database

AT = datetime(2026, 3, 19, 14, 30, tzinfo=UTC)
ID, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def daemon(**changes: Any) -> DaemonFacts:
    """A daemon that runs, with the operator's file and most of its slots free."""
    usual: dict[str, Any] = {"instance": "host-1", "host": "h", "started_at": after(-900), "seen_at": after(-0.5)}
    limits = {"slots": 16, "slots_max": 16, "requests_per_s_max": 0.0, "in_flight": 2}
    return DaemonFacts(**{**usual, **limits, "is_live": True, "has_file": True, **changes})


def facts(
    method: Method = Method.BET_WIN,
    state: CallbackState = CallbackState.READY,
    *,
    of_operator: dict[str, Any] | None = None,
    daemons: tuple[DaemonFacts, ...] | None = None,
    file: FileState = FileState.USABLE,
    ahead: int = 0,
    interactive_due: int = 0,
    earlier: Facts | None = None,
    **of_callback: Any,
) -> Facts:
    """A callback that is due since a second and about to be claimed, but for what is said here."""
    unset = dict.fromkeys(CallbackFacts.__slots__)
    usual: dict[str, Any] = {"request_id": ID, "operator_id": OPERATOR, "method": method, "lane": RULES[method].lane}
    usual["bet_id"] = "b1" if method.startswith("BET") else None
    usual |= {"state": state, "effect": Effect.NONE, "attempts": 0, "retry_stopped": False, "due_at": after(-1)}
    operator: dict[str, Any] = dict.fromkeys(OperatorFacts.__slots__)
    operator |= {"enabled": True, "circuit": Circuit.CLOSED, "consecutive_failures": 0}
    return Facts(
        at=AT,
        callback=CallbackFacts(**{**unset, **usual, **of_callback}),
        operator=OperatorFacts(**{**operator, **(of_operator or {})}),
        daemons=(daemon(),) if daemons is None else daemons,
        file=FileFacts(path="operators/x.toml", state=file, faults=("x.toml: interactive.max_attempts = 0",)),
        ahead=ahead,
        interactive_due=interactive_due,
        earlier=earlier,
    )


def codes(given: Facts) -> list[str]:
    return [reason.code.value for reason in reasons(given)]


PAUSED = {"paused_at": after(-60), "paused_by": "ann", "pause_reason": "wallet upgrade"}
OPEN = {"circuit": Circuit.OPEN, "circuit_since": after(-12)}
GONE = daemon(is_live=False, seen_at=after(-60))
LEASED: dict[str, Any] = {"state": CallbackState.IN_FLIGHT, "leased_by": "host-1", "leased_at": after(-1)}
LEASED |= {"lease_until": after(9), "attempts": 1}


def half_open(ping: uuid.UUID = OTHER) -> dict[str, Any]:
    deciding = OtherCallback(request_id=ping, method=Method.PING, state=CallbackState.READY)
    return {"circuit": Circuit.HALF_OPEN, "circuit_since": after(-12), "ping": deciding}


def intervention(action: str) -> LastIntervention:
    return LastIntervention(action=action, done_by="ann", done_at=after(-5), reason="by phone")


TABLE: dict[str, tuple[Facts, list[str]]] = {
    "nothing": (facts(), ["due"]),
    "nothing, with time left": (facts(Method.BET_MAKE, expires_at=after(9)), ["due"]),
    "it is over": (facts(state=CallbackState.DELIVERED), ["delivered"]),
    "it is over and on the review list": (
        facts(state=CallbackState.EXHAUSTED, review_since=after(-3)),
        ["exhausted", "needs_review"],
    ),
    "it was resolved": (
        facts(state=CallbackState.REJECTED, last_intervention=intervention("resolve")),
        ["rejected", "resolved"],
    ),
    "it was taken back": (
        facts(state=CallbackState.CANCELLED, last_intervention=intervention("cancel")),
        ["cancelled"],
    ),
    "it was retried, and came back to the list": (
        facts(state=CallbackState.REJECTED, review_since=after(-3), last_intervention=intervention("resolve")),
        ["rejected", "needs_review"],
    ),
    "it is under way": (facts(**LEASED), ["in_flight"]),
    "it is under way and nobody will try again": (facts(**LEASED, retry_stopped=True), ["in_flight", "retry_stopped"]),
    "its lease ran out": (facts(**{**LEASED, "lease_until": after(-1)}), ["lease_ran_out"]),
    "its daemon is gone, and others run": (
        facts(**LEASED, daemons=(daemon(instance="host-2"), GONE)),
        ["in_flight", "lease_owner_gone"],
    ),
    "its daemon was never seen": (
        facts(**LEASED, daemons=(daemon(instance="host-2"),)),
        ["in_flight", "lease_owner_gone"],
    ),
    "its daemon was started anew since": (
        facts(**LEASED, daemons=(daemon(started_at=after(-0.5)),)),
        ["in_flight", "lease_owner_gone"],
    ),
    "its daemon is gone, and so are all": (
        facts(**{**LEASED, "lease_until": after(-1)}, daemons=(GONE,)),
        ["lease_ran_out", "lease_owner_gone", "no_daemon"],
    ),
    "no daemon runs": (facts(daemons=(GONE,)), ["no_daemon"]),
    "no daemon runs, and the file is missing here": (
        facts(daemons=(), file=FileState.MISSING),
        ["no_daemon", "file_missing_here"],
    ),
    "daemons run, but none has the file": (
        facts(daemons=(daemon(has_file=False), GONE), file=FileState.FAULTY),
        ["not_served", "file_faulty_here"],
    ),
    "a file that is missing here, while a daemon has it, is no reason": (facts(file=FileState.MISSING), ["due"]),
    "the operator is disabled": (facts(of_operator={"enabled": False}), ["operator_disabled"]),
    "the operator is paused": (facts(of_operator=PAUSED), ["paused"]),
    "the circuit is open": (facts(of_operator=OPEN), ["circuit_open"]),
    "another PING decides": (facts(of_operator=half_open()), ["circuit_half_open"]),
    "it is the PING that decides": (facts(Method.PING, of_operator=half_open(ID)), ["due"]),
    "the operator asked to be left alone": (facts(of_operator={"backoff_until": after(8)}), ["backing_off"]),
    "what was asked for is over": (facts(of_operator={"backoff_until": after(-1)}), ["due"]),
    "it is due later": (facts(due_at=after(40)), ["due_later"]),
    "due later and left alone for longer": (
        facts(due_at=after(4), of_operator={"backoff_until": after(8)}),
        ["backing_off", "due_later"],
    ),
    "due later than the operator is left alone": (
        facts(due_at=after(40), of_operator={"backoff_until": after(8)}),
        ["due_later", "backing_off"],
    ),
    "everything at once, what a person must do first": (
        facts(
            daemons=(GONE,),
            file=FileState.MISSING,
            due_at=after(40),
            of_operator={"enabled": False, **PAUSED, **OPEN, "backoff_until": after(8)},
        ),
        ["no_daemon", "file_missing_here", "operator_disabled", "paused", "circuit_open", "due_later", "backing_off"],
    ),
    "its deadline passed, and the operator is paused": (
        facts(expires_at=after(-1), of_operator=PAUSED),
        ["deadline_passed", "paused"],
    ),
    "its deadline passed while the slots were full": (
        facts(expires_at=AT, daemons=(daemon(in_flight=16),)),
        ["deadline_passed"],
    ),
    "its deadline comes before its retry": (
        facts(due_at=after(40), expires_at=after(39)),
        ["due_later", "deadline_first"],
    ),
    "its deadline comes after its retry": (
        facts(due_at=after(40), expires_at=after(41)),
        ["due_later", "deadline_runs"],
    ),
    "its deadline runs while the operator is paused": (
        facts(Method.BET_ROLLBACK, expires_at=after(9), of_operator=PAUSED),
        ["paused", "deadline_runs"],
    ),
    "what someone waits for ends at once, so its deadline does not matter": (
        facts(Method.BET_MAKE, expires_at=after(9), of_operator=OPEN),
        ["circuit_open"],
    ),
    "nobody is there to end it at once": (
        facts(Method.BALANCE, expires_at=after(9), of_operator=PAUSED, daemons=()),
        ["no_daemon", "paused", "deadline_runs"],
    ),
    "another transaction holds its row": (facts(row_locker=RowLocker(pid=7, application="psql")), ["row_locked"]),
    "all slots of all daemons are in use": (
        facts(daemons=(daemon(in_flight=16), daemon(instance="host-2", in_flight=17), GONE), ahead=4),
        ["slots_full"],
    ),
    "one daemon has a free slot": (
        facts(daemons=(daemon(in_flight=16), daemon(instance="host-2", in_flight=15)), ahead=4),
        ["due"],
    ),
    "a gone daemon's slots are nobody's": (
        facts(daemons=(daemon(in_flight=16), replace(GONE, in_flight=0))),
        ["slots_full"],
    ),
    "no share was given yet": (facts(daemons=(daemon(slots=0, in_flight=0),)), ["slots_full"]),
    "slots are full, but it is not in the queue yet": (
        facts(daemons=(daemon(in_flight=16),), due_at=after(1)),
        ["due_later"],
    ),
    "the circuit closed a second ago, and four are ahead": (
        facts(of_operator={"circuit_since": after(-1)}, daemons=(daemon(in_flight=0),), ahead=4),
        ["slow_start"],
    ),
    "the circuit closed a second ago, and three are ahead": (
        facts(of_operator={"circuit_since": after(-1)}, daemons=(daemon(in_flight=0),), ahead=3),
        ["due"],
    ),
    "the circuit closed long ago": (facts(of_operator={"circuit_since": after(-3)}, ahead=9), ["due"]),
    "the rate lets others go first": (facts(daemons=(daemon(requests_per_s_max=50.0),), ahead=9), ["rate"]),
    "the rate lets bets go first": (facts(daemons=(daemon(requests_per_s_max=50.0),), interactive_due=9), ["rate"]),
    "one request in ten seconds": (facts(daemons=(daemon(requests_per_s_max=0.1),)), ["rate"]),
    "a rate that nobody else uses is no reason": (facts(daemons=(daemon(requests_per_s_max=50.0),)), ["due"]),
    "slots and rate": (
        facts(Method.BET_MAKE, daemons=(daemon(in_flight=16, requests_per_s_max=5.0),), ahead=9, expires_at=after(9)),
        ["slots_full", "rate", "deadline_runs"],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_reason_that_holds_is_told_the_decisive_one_first(name: str) -> None:
    given, expected = TABLE[name]
    assert codes(given) == expected


def test_what_waits_tells_why_the_earlier_one_is_not_done() -> None:
    earlier = facts(Method.BET_MAKE, due_at=after(2), expires_at=after(1), of_operator={"enabled": False})
    (reason,) = reasons(facts(state=CallbackState.WAITING, earlier=earlier))
    assert reason.code is Code.WAITING
    assert [deeper.code for deeper in reason.because] == ["operator_disabled", "due_later", "deadline_first"]


def test_the_table_has_every_reason_there_is() -> None:
    told = {code for _, expected in TABLE.values() for code in expected}
    assert {code.value for code in Code} - told == {"waiting"}


@pytest.mark.parametrize("name", TABLE)
def test_every_reason_that_is_told_has_words(name: str) -> None:
    """What a race or an old row leaves out is no reason for a traceback at three in the morning."""
    given, _ = TABLE[name]
    for reason in reasons(given):
        for sentence in said(reason.code, given):
            assert sentence
            assert "None" not in sentence
            assert "  " not in sentence
            assert not sentence.endswith(".")


SHUT_IN_THE_DATABASE = {
    Code.DEADLINE_PASSED,
    Code.PAUSED,
    Code.CIRCUIT_OPEN,
    Code.CIRCUIT_HALF_OPEN,
    Code.BACKING_OFF,
    Code.DUE_LATER,
}


async def test_claim_takes_and_expire_ends_exactly_what_is_told(
    harness: Harness, database: Database, tmp_path: Path
) -> None:
    """The rules stand twice, here in words and there in SQL; so every combination is tried against both."""
    pool = Pool(database.support, pool_size=1, application_name="test")
    await pool.open()
    # What is not over could not be removed.
    await harness.owner.execute("alter table predictu_dispatch.callback disable trigger callback_removed_when_over")
    tried = 0
    for circuit, is_paused, held_s, due_s, expires_s, method in itertools.product(
        ("closed", "open", "half_open"), (False, True), (-9, 9), (-9, 9), (-3, 99), ("PING", "PING other", "BALANCE")
    ):
        if method == "PING" and due_s > 0:
            # A PING is never tried again, so it is due from the beginning.
            continue
        request_id = uuid.uuid4()
        await harness.owner.execute(
            "insert into predictu_dispatch.callback"
            " (operator_id, request_id, method, lane, state, params, due_at, expires_at)"
            " values ($1, $2, $3, 'interactive', 'ready', '{}', now() + $4, now() + $5)",
            *(OPERATOR, request_id, method.split()[0], timedelta(seconds=due_s), timedelta(seconds=expires_s)),
        )
        await harness.owner.execute(
            "update predictu_dispatch.operator set circuit = $2, ping_request_id = $3,"
            " interactive_backoff_until = now() + $4, paused_at = $5, paused_by = $6, pause_reason = $6"
            " where operator_id = $1",
            *(OPERATOR, circuit, request_id if method == "PING" else OTHER, timedelta(seconds=held_s)),
            *((AT, "ann") if is_paused else (None, None)),
        )
        (row,) = await callbacks_with_id(pool, request_id, OPERATOR)
        told = await facts_of(pool, row, config=tmp_path / "dispatcher.toml")
        shut = {reason.code for reason in reasons(told)} & SHUT_IN_THE_DATABASE
        claimed = [lease["request_id"] for lease in await claim(harness.daemon)]
        assert (request_id in claimed) == (not shut), (circuit, is_paused, held_s, due_s, expires_s, method, shut)
        if not claimed:
            ended = [change["request_id"] for change in await harness.expire()]
            assert (request_id in ended) == (told.ends_at_once or Code.DEADLINE_PASSED in shut)
        await harness.owner.execute("delete from predictu_dispatch.callback")
        tried += 1
    await pool.close()
    assert tried == 120
