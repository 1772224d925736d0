"""The reasons of `why` as a truth table, and compared with what claim() and expire() do."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from predictu_dispatch.commands.why.texts import explain
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
from predictu_dispatch.edge.postgres.diagnosis_facts import callbacks_with_id, read_facts
from tests.support.harness import OPERATOR, Harness, claim
from tests.support.postgres import Database

AT = datetime(2026, 3, 19, 14, 30, tzinfo=UTC)
ID, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def daemon(**changes: Any) -> DaemonFacts:
    """A running daemon, with the operator's file and most of its slots free."""
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
    """A callback that is due and about to be claimed, changed by the arguments."""
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
CRASHED = daemon(is_live=False, seen_at=after(-60))
LEASED: dict[str, Any] = {"state": CallbackState.IN_FLIGHT, "leased_by": "host-1", "leased_at": after(-1)}
LEASED |= {"lease_until": after(9), "attempts": 1}


def half_open(ping: uuid.UUID = OTHER) -> dict[str, Any]:
    deciding = OtherCallback(request_id=ping, method=Method.PING, state=CallbackState.READY)
    return {"circuit": Circuit.HALF_OPEN, "circuit_since": after(-12), "ping": deciding}


def intervention(action: str) -> LastIntervention:
    return LastIntervention(action=action, done_by="ann", done_at=after(-5), reason="by phone")


LOCKER = RowLocker(locked="callback", pid=7, application="psql")
BET_LOCKER = RowLocker(locked="bet", pid=None, application="", gid="trade-7", owner="producer")

TABLE: dict[str, tuple[Facts, list[str]]] = {
    "nothing holds it": (facts(), ["due"]),
    "nothing, with time left": (facts(Method.BET_MAKE, expires_at=after(9)), ["due"]),
    "it is final": (facts(state=CallbackState.DELIVERED), ["delivered"]),
    "it is final and needs review": (
        facts(state=CallbackState.EXHAUSTED, review_since=after(-3)),
        ["exhausted", "needs_review"],
    ),
    "it was resolved": (
        facts(state=CallbackState.REJECTED, last_intervention=intervention("resolve")),
        ["rejected", "resolved"],
    ),
    "it was cancelled": (facts(state=CallbackState.CANCELLED, last_intervention=intervention("cancel")), ["cancelled"]),
    "it was resolved, retried and needs review again": (
        facts(state=CallbackState.REJECTED, review_since=after(-3), last_intervention=intervention("resolve")),
        ["rejected", "needs_review"],
    ),
    "it is in flight": (facts(**LEASED), ["in_flight"]),
    "it is in flight and is not retried any more": (
        facts(**LEASED, retry_stopped=True),
        ["in_flight", "retry_stopped"],
    ),
    "its lease expired": (facts(**{**LEASED, "lease_until": after(-1)}), ["lease_expired"]),
    "its daemon crashed, and others run": (
        facts(**LEASED, daemons=(daemon(instance="host-2"), CRASHED)),
        ["in_flight", "lease_owner_stopped"],
    ),
    "its daemon was never seen": (
        facts(**LEASED, daemons=(daemon(instance="host-2"),)),
        ["in_flight", "lease_owner_stopped"],
    ),
    "its daemon was restarted since": (
        facts(**LEASED, daemons=(daemon(started_at=after(-0.5)),)),
        ["in_flight", "lease_owner_stopped"],
    ),
    "its daemon crashed, and none runs": (
        facts(**{**LEASED, "lease_until": after(-1)}, daemons=(CRASHED,)),
        ["lease_expired", "lease_owner_stopped", "no_daemon"],
    ),
    "no daemon runs": (facts(daemons=(CRASHED,)), ["no_daemon"]),
    "no daemon runs, and the file is missing here": (
        facts(daemons=(), file=FileState.MISSING),
        ["no_daemon", "file_missing_here"],
    ),
    "daemons run, but none has the file": (
        facts(daemons=(daemon(has_file=False), CRASHED), file=FileState.FAULTY),
        ["not_served", "file_faulty_here"],
    ),
    "a daemon has the file that is missing here": (facts(file=FileState.MISSING), ["due"]),
    "the operator is disabled": (facts(of_operator={"enabled": False}), ["operator_disabled"]),
    "the operator is paused": (facts(of_operator=PAUSED), ["paused"]),
    "the circuit is open": (facts(of_operator=OPEN), ["circuit_open"]),
    "another PING decides the half-open circuit": (facts(of_operator=half_open()), ["circuit_half_open"]),
    "it is the deciding PING": (facts(Method.PING, of_operator=half_open(ID)), ["due"]),
    "Retry-After holds": (facts(of_operator={"backoff_until": after(8)}), ["backing_off"]),
    "Retry-After is over": (facts(of_operator={"backoff_until": after(-1)}), ["due"]),
    "it is due later": (facts(due_at=after(40)), ["due_later"]),
    "due later, and Retry-After lasts longer": (
        facts(due_at=after(4), of_operator={"backoff_until": after(8)}),
        ["backing_off", "due_later"],
    ),
    "due later, after Retry-After": (
        facts(due_at=after(40), of_operator={"backoff_until": after(8)}),
        ["due_later", "backing_off"],
    ),
    "everything at once: what a person must do comes first": (
        facts(
            daemons=(CRASHED,),
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
    "a producer waits, so it ends at once and its deadline does not matter": (
        facts(Method.BET_MAKE, expires_at=after(9), of_operator=OPEN),
        ["circuit_open"],
    ),
    "no daemon runs to end it at once": (
        facts(Method.BALANCE, expires_at=after(9), of_operator=PAUSED, daemons=()),
        ["no_daemon", "paused", "deadline_runs"],
    ),
    "another transaction has locked its row": (facts(row_locker=LOCKER), ["row_locked"]),
    "another transaction has locked its bet, which no claim needs": (facts(row_locker=BET_LOCKER), ["due"]),
    "its deadline passed, and its bet is locked": (
        facts(expires_at=after(-1), row_locker=BET_LOCKER),
        ["deadline_passed", "row_locked"],
    ),
    "it is in flight, and its bet is locked": (facts(**LEASED, row_locker=BET_LOCKER), ["in_flight", "row_locked"]),
    "its lease expired, and its row is locked": (
        facts(**{**LEASED, "lease_until": after(-1)}, row_locker=LOCKER),
        ["lease_expired", "row_locked"],
    ),
    "all slots of all daemons are in use": (
        facts(daemons=(daemon(in_flight=16), daemon(instance="host-2", in_flight=17), CRASHED), ahead=4),
        ["slots_full"],
    ),
    "one daemon has a free slot": (
        facts(daemons=(daemon(in_flight=16), daemon(instance="host-2", in_flight=15)), ahead=4),
        ["due"],
    ),
    "the slots of a crashed daemon do not count": (
        facts(daemons=(daemon(in_flight=16), replace(CRASHED, in_flight=0))),
        ["slots_full"],
    ),
    "no daemon has a share yet": (facts(daemons=(daemon(slots=0, in_flight=0),)), ["slots_full"]),
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
    "the rate limit has nothing ahead": (facts(daemons=(daemon(requests_per_s_max=50.0),)), ["due"]),
    "one daemon cannot connect, another one can": (
        facts(daemons=(daemon(unreachable_since=after(-9), slots=0, in_flight=0), daemon(instance="host-2"))),
        ["unreachable"],
    ),
    "slots and rate": (
        facts(Method.BET_MAKE, daemons=(daemon(in_flight=16, requests_per_s_max=5.0),), ahead=9, expires_at=after(9)),
        ["slots_full", "rate", "deadline_runs"],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_reason_that_holds_is_found_the_decisive_one_first(name: str) -> None:
    given, expected = TABLE[name]
    assert codes(given) == expected


def test_a_waiting_callback_has_the_reasons_of_the_earlier_one() -> None:
    earlier = facts(Method.BET_MAKE, due_at=after(2), expires_at=after(1), of_operator={"enabled": False})
    (reason,) = reasons(facts(state=CallbackState.WAITING, earlier=earlier))
    assert reason.code is Code.WAITING
    assert [deeper.code for deeper in reason.because] == ["operator_disabled", "due_later", "deadline_first"]


def test_the_table_has_every_code() -> None:
    listed = {code for _, expected in TABLE.values() for code in expected}
    assert {code.value for code in Code} - listed == {"waiting"}


@pytest.mark.parametrize("name", TABLE)
def test_every_reason_has_sentences(name: str) -> None:
    """Also if a race or an old row leaves fields empty."""
    given, _ = TABLE[name]
    for reason in reasons(given):
        for sentence in explain(reason.code, given):
            assert sentence
            assert "None" not in sentence
            assert "{" not in sentence
            assert "  " not in sentence
            assert not sentence.endswith(".")


BLOCKS_CLAIM = {
    Code.DEADLINE_PASSED,
    Code.PAUSED,
    Code.CIRCUIT_OPEN,
    Code.CIRCUIT_HALF_OPEN,
    Code.BACKING_OFF,
    Code.DUE_LATER,
}


async def test_claim_and_expire_agree_with_the_reasons(harness: Harness, database: Database) -> None:
    """The rules exist in Python and in SQL, so every combination is tried with both."""
    pool = Pool(database.support, pool_size=1, application_name="test")
    await pool.open()
    # The trigger refuses to delete a callback that is not final.
    await harness.owner.execute("alter table predictu_dispatch.callback disable trigger callback_deleted_when_final")
    tried = 0
    for circuit, is_paused, backoff_s, due_s, expires_s, method in itertools.product(
        ("closed", "open", "half_open"), (False, True), (-9, 9), (-9, 9), (-3, 99), ("PING", "PING other", "BALANCE")
    ):
        if method == "PING" and due_s > 0:
            # A PING is never retried, so it is due at once.
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
            *(OPERATOR, circuit, request_id if method == "PING" else OTHER, timedelta(seconds=backoff_s)),
            *((AT, "ann") if is_paused else (None, None)),
        )
        (row,) = await callbacks_with_id(pool, request_id, OPERATOR)
        found = await read_facts(pool, row, FileFacts(path="", state=FileState.USABLE))
        blocks = {reason.code for reason in reasons(found)} & BLOCKS_CLAIM
        claimed = [lease["request_id"] for lease in await claim(harness.daemon)]
        assert (request_id in claimed) == (not blocks), (
            circuit,
            is_paused,
            backoff_s,
            due_s,
            expires_s,
            method,
            blocks,
        )
        if not claimed:
            ended = [change["request_id"] for change in await harness.expire()]
            assert (request_id in ended) == (found.ends_at_once or Code.DEADLINE_PASSED in blocks)
        await harness.owner.execute("delete from predictu_dispatch.callback")
        tried += 1
    await pool.close()
    assert tried == 120
