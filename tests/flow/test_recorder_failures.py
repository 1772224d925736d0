"""Reports that the database refuses or settles slowly: no answer is lost, and the lane goes on."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

import pytest

from predictu_dispatch.core.callback import Callback, Effect
from predictu_dispatch.core.lifecycle import Attempt, CallbackState
from predictu_dispatch.core.verdict import Verdict
from tests.flow.test_recorder import answered, claimed, recording
from tests.support.daemons import until
from tests.support.harness import Harness
from tests.support.postgres import Database

REFUSES = "raise exception 'not stored' using errcode = 'PD900'"


async def break_audit(harness: Harness, what: str, request_id: UUID | None = None) -> None:
    """A trigger before each audit row, or before those of one callback."""
    when = "" if request_id is None else f"if new.request_id = '{request_id}' then "
    end = "" if request_id is None else "end if; "
    await harness.owner.execute(
        f"create function public.broken() returns trigger language plpgsql as"
        f" $$begin {when}{what}; {end}return new; end$$;"
        " create trigger broken before insert on predictu_dispatch.attempt_record"
        " for each row execute function public.broken()"
    )


async def mend_audit(harness: Harness) -> None:
    await harness.owner.execute(
        "drop trigger broken on predictu_dispatch.attempt_record; drop function public.broken()"
    )


def retried(callback: Callback) -> Attempt:
    """An attempt that settle_one() leaves to settle()."""
    attempt = answered(callback)
    outcome = attempt.outcome._replace(
        verdict=Verdict.RETRY, state=CallbackState.READY, effect=Effect.UNKNOWN, due_in_s=60.0
    )
    return attempt._replace(outcome=outcome)


async def test_a_report_that_is_refused_for_good_frees_its_slot_and_is_settled_when_it_can_be(
    harness: Harness, database: Database
) -> None:
    bad_id = await harness.place("bad")
    for n in range(8):
        await harness.place(f"good-{n}")
    await break_audit(harness, REFUSES, bad_id)
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        bad = callbacks.pop("bad")
        done = recorder.record(answered(bad))
        await asyncio.gather(*(recorder.record(answered(one)) for one in callbacks.values()))
        await done
        assert recorder.is_recording(bad)
        assert recorder.unsettled.failing == 1
        assert sorted(observer.settled) == sorted((name, CallbackState.DELIVERED) for name in callbacks)
        # Whatever arrives meanwhile is settled, and the refused one is not forgotten.
        await harness.place("later")
        await recorder.record(answered((await claimed(outbox))["later"]))
        assert recorder.unsettled.held_up_s() == 0.0
        assert recorder.unsettled.oldest_s() > 0.0
        await mend_audit(harness)
        await recorder.idle()
        assert observer.settled[-1] == ("bad", CallbackState.DELIVERED)
        assert len(observer.refused) == 1
    assert await harness.attempts(bad_id) == [(1, "delivered")]


async def test_while_nothing_can_be_settled_the_slots_stay_taken(harness: Harness, database: Database) -> None:
    """Otherwise the daemon would go on debiting players whose bets it cannot settle."""
    for n in range(5):
        await harness.place(f"b-{n}")
    await break_audit(harness, REFUSES)
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        slots = [recorder.record(answered(one)) for one in callbacks.values()]
        await until("all were refused", lambda: recorder.unsettled.failing == len(slots))
        assert not any(slot.done() for slot in slots)
        assert recorder.unsettled.held_up_s() > 0.0
        await mend_audit(harness)
        ended_at_s = time.monotonic()
        await recorder.idle()
        assert time.monotonic() - ended_at_s < 6.0
        assert len(observer.settled) == len(slots)
        assert recorder.unsettled.failing == 0


async def test_answers_kept_without_a_slot_are_bounded_in_bytes(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may have a body of 64 KiB. Those beyond the bound keep their slots."""
    monkeypatch.setattr("predictu_dispatch.flow.unsettled.KEPT_BYTES_MAX", 200 * 1024)
    for n in range(6):
        await harness.place(f"b-{n}")
    async with recording(database) as (outbox, recorder, observer):
        attempts = [retried(one) for one in (await claimed(outbox)).values()]
        for again in range(2):
            transaction = harness.owner.transaction()
            await transaction.start()
            await harness.owner.execute("select from predictu_dispatch.bet for update")
            slots = [
                recorder.record(one._replace(exchange=one.exchange._replace(body=b"x" * 64 * 1024))) for one in attempts
            ]
            await until(
                "all were locked twice",
                lambda: [one.times_locked > 1 for one in recorder.unsettled.waiting()] == [True] * len(attempts),
            )
            assert sum(slot.done() for slot in slots) == 3
            await transaction.rollback()
            await recorder.idle()
            assert all(slot.done() for slot in slots)
            # A second report of an attempt is late, and what was kept before counts no more.
            assert len(observer.settled) == (again + 1) * len(slots)


@pytest.fixture
def _quick_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements of the lane time out after half a second, not after ten."""
    monkeypatch.setattr("predictu_dispatch.edge.postgres.database._COMMAND_TIMEOUT_S", 0.5)


@pytest.mark.usefixtures("_quick_timeout")
async def test_a_batch_that_takes_too_long_is_settled_one_by_one(harness: Harness, database: Database) -> None:
    """Repeated unchanged, it would never end."""
    for n in range(10):
        await harness.place(f"b-{n}")
    await break_audit(harness, "perform pg_sleep(0.1)")
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        await asyncio.gather(*(recorder.record(answered(one)) for one in callbacks.values()))
        await recorder.idle()
        assert len(observer.settled) == len(callbacks)
        assert observer.refused == []
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt") == len(callbacks)


@pytest.mark.usefixtures("_quick_timeout")
async def test_one_report_that_takes_too_long_delays_no_other(harness: Harness, database: Database) -> None:
    slow_id = await harness.place("slow")
    for n in range(5):
        await harness.place(f"b-{n}")
    await break_audit(harness, "perform pg_sleep(3)", slow_id)
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        slow, first = callbacks.pop("slow"), callbacks.pop("b-0")
        recorder.record(answered(slow))
        # In one batch with it.
        await recorder.record(answered(first))
        assert recorder.is_recording(slow)
        began_s = time.monotonic()
        await asyncio.gather(*(recorder.record(answered(one)) for one in callbacks.values()))
        assert time.monotonic() - began_s < 2.0, "the lane waits for nothing"
        assert recorder.is_recording(slow)
        assert len(observer.settled) == 5
        await recorder.idle()
    assert await harness.attempts(slow_id) == [(1, "delivered")]


async def test_an_answer_of_a_newer_release_is_asked_for_again(harness: Harness, database: Database) -> None:
    """Its settle committed; the repetition says so in words that this release knows."""
    request_id = await harness.place("b-1")
    await harness.owner.execute(
        "alter function predictu_dispatch.settle(predictu_dispatch.attempt_report[]) rename to settle_before;"
        " create function predictu_dispatch.settle(reports predictu_dispatch.attempt_report[])"
        " returns setof predictu_dispatch.change language sql security definer as $$"
        " select operator_id, request_id, method, lane, state, reason,"
        "        case cause when 'settled' then 'archived' else cause end, attempt"
        "   from predictu_dispatch.settle_before(reports) $$"
    )
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        await recorder.record(retried(callbacks["b-1"]))
        await recorder.idle()
        assert observer.settled == [("b-1", CallbackState.READY)]
    assert await harness.attempts(request_id) == [(1, "retry")]
    assert await harness.state(request_id) == "ready"


async def test_a_report_of_an_attempt_that_was_never_claimed_is_dropped(harness: Harness, database: Database) -> None:
    await harness.place("b-1")
    await harness.place("b-2")
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        never = callbacks["b-1"]._replace(attempt=7)
        await asyncio.gather(recorder.record(answered(never)), recorder.record(answered(callbacks["b-2"])))
        await recorder.idle()
        assert observer.settled == [("b-2", CallbackState.DELIVERED)]
        assert observer.refused == ["this attempt was never claimed"]


@pytest.mark.usefixtures("_quick_timeout")
async def test_a_process_that_ends_retries_at_once_what_is_settled_apart(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause may be over, and no later retry will come."""
    monkeypatch.setattr("predictu_dispatch.flow.recorder.APART_RETRY_S", 1000.0)
    monkeypatch.setattr("predictu_dispatch.flow.recorder.APART_RETRY_MAX_S", 1000.0)
    monkeypatch.setattr("predictu_dispatch.flow.recorder.CAUSE_RETRY_MAX_S", 1000.0)
    refused_id, slow_id = await harness.place("refused"), await harness.place("slow")
    await harness.place("good")
    await break_audit(
        harness,
        f"if new.request_id = '{refused_id}' then {REFUSES}; end if;"
        f" if new.request_id = '{slow_id}' then perform pg_sleep(3); end if",
    )
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        for callback in callbacks.values():
            recorder.record(answered(callback))
        await until("two failed alone", lambda: recorder.unsettled.failing == 2)
        recorder.hurry()
        # The refused one is tried again and again, and the slow one gets its time.
        await until("the slow one is settled", lambda: recorder.unsettled.failing == 1)
        await mend_audit(harness)
        ended_at_s = time.monotonic()
        await recorder.idle()
        assert time.monotonic() - ended_at_s < 2.0
        assert len(observer.settled) == 3
