"""The recorder against a real database: a locked bet delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

from predictu_dispatch.core.callback import Callback, Effect, Evidence, Exchange
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.lifecycle import Attempt, CallbackChange, CallbackState, Cause, outcome_of
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import INTERACTIVE
from predictu_dispatch.core.verdict import Statuses, Verdict, judge
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.flow.recorder import Recorder
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database

TIMEOUT_S = 20.0


class RecordingObserver:
    """Keeps what the recorder reports."""

    def __init__(self) -> None:
        self.settled: list[tuple[str | None, CallbackState | None]] = []
        self.refused: list[str] = []

    def attempt_began(self, callback: Callback) -> None:
        """Not called here."""

    def attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None:
        assert change.cause in {Cause.SETTLED, Cause.LATE}
        self.settled.append((attempt.callback.bet_id, change.state))

    def callback_changed(self, change: CallbackChange) -> None:
        """Covered by the database's tests."""

    def chore_failed(self, chore: str, error: Exception) -> None:
        assert chore == "settle_interactive", error

    def chore_succeeded(self, chore: str) -> None:
        """Called after each settle."""

    def report_refused(self, attempt: Attempt, error: Exception) -> None:  # noqa: ARG002 - the protocol's signature
        self.refused.append(str(error))


@asynccontextmanager
async def recording(database: Database) -> AsyncIterator[tuple[Outbox, Recorder, RecordingObserver]]:
    pool = Pool(database.dispatcher, pool_size=2, application_name="test")
    await pool.open()
    observer = RecordingObserver()
    outbox = Outbox(pool, instance="host-1")
    recorder = Recorder(Lane.INTERACTIVE, outbox, observer, lambda *_: None)
    running = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield outbox, recorder, observer
    finally:
        running.cancel()
        await pool.close()


async def claimed(outbox: Outbox) -> dict[str | None, Callback]:
    request = ClaimRequest(
        operator_id=OPERATOR,
        lane=Lane.INTERACTIVE,
        free_slots=10,
        lease_s=60.0,
        rollback_lease_s=60.0,
        amount_format="subunits",
    )
    return {callback.bet_id: callback for callback in await outbox.claim([request])}


def answered(callback: Callback, *, header: str = "x") -> Attempt:
    """An attempt that the operator confirmed."""
    exchange = Exchange(
        evidence=Evidence.ANSWERED,
        status=200,
        headers=(("Server", header),),
        body=b'{"status":"OK","balance":1}',
        total_ms=1.0,
    )
    judgement = judge(callback, exchange, Statuses.of(), now=datetime.now(UTC))
    outcome = outcome_of(callback, judgement, INTERACTIVE, recheck_s=0.0, elapsed_s=0.0, jitter=0.0)
    return Attempt(
        callback=callback,
        instance="host-1",
        finished_at=callback.leased_at,
        exchange=exchange,
        judgement=judgement,
        outcome=outcome,
        report_id=uuid4(),
    )


async def test_a_bet_locked_by_a_producers_open_transaction_delays_no_other(
    harness: Harness, database: Database
) -> None:
    """Otherwise one forgotten commit stops the settling of all operators' bets."""
    await harness.place("locked")
    await harness.place("free")
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        async with harness.producer.transaction():
            await harness.rollback("locked")
            # It returns before it is settled, so that its slot is free for other players.
            await recorder.record(answered(callbacks["locked"]))
            await recorder.record(answered(callbacks["free"]))
            assert observer.settled == [("free", CallbackState.DELIVERED)]
            assert recorder.is_recording(callbacks["locked"])
            assert not recorder.is_recording(callbacks["free"])
        await recorder.idle()
        assert observer.settled[1:] == [("locked", CallbackState.DELIVERED)]
    assert (await harness.bet("free"))["state"] == "open"
    assert (await harness.bet("locked"))["state"] == "closing"


async def test_a_reapers_report_of_a_locked_bet_never_wins_over_the_answer(
    harness: Harness, database: Database
) -> None:
    """Otherwise a confirmed debit could count as an unknown outcome."""
    await harness.place("locked")
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        answer = answered(callbacks["locked"])
        interrupted = answer._replace(
            reaped=True,
            report_id=uuid4(),
            outcome=answer.outcome._replace(
                verdict=Verdict.RETRY, state=CallbackState.EXHAUSTED, effect=Effect.UNKNOWN
            ),
        )
        async with harness.producer.transaction():
            await harness.rollback("locked")
            await recorder.record(interrupted)
            assert not recorder.is_recording(callbacks["locked"])
            reports = (interrupted, answer, interrupted)
            await asyncio.gather(*(recorder.record(attempt) for attempt in reports))
        await recorder.idle()
    assert observer.settled == [("locked", CallbackState.DELIVERED)]
    assert await harness.attempts(callbacks["locked"].request_id) == [(1, "delivered")]


async def test_an_answer_that_the_audit_refuses_still_counts_and_delays_no_other(
    harness: Harness, database: Database
) -> None:
    """Postgres stores no NUL in JSON. The transport replaces it.

    This is the second line of defence.
    """
    await harness.place("good")
    await harness.place("bad")
    async with recording(database) as (outbox, recorder, observer):
        callbacks = await claimed(outbox)
        await asyncio.gather(
            recorder.record(answered(callbacks["bad"], header="\0")), recorder.record(answered(callbacks["good"]))
        )
    assert sorted(observer.settled) == [("bad", CallbackState.DELIVERED), ("good", CallbackState.DELIVERED)]
    assert len(observer.refused) == 1
    assert {(await harness.bet(bet_id))["state"] for bet_id in ("good", "bad")} == {"open"}
    row = await harness.owner.fetchrow(
        "select error, response_headers::text from predictu_dispatch.attempt where request_id = $1",
        callbacks["bad"].request_id,
    )
    assert row is not None
    assert row["error"].startswith("the audit refused the exchange")
