"""The recorder against a real database: what is held there holds up nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

from predictu_dispatch.core.attempt import Attempt, CallbackChange, Cause
from predictu_dispatch.core.callback import Callback, Effect, Evidence, Exchange
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.lifecycle import CallbackState, outcome_of
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import INTERACTIVE
from predictu_dispatch.core.verdict import Statuses, Verdict, judge
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.flow.recorder import Recorder
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database

PATIENCE_S = 20.0


class Witness:
    """Remembers what the recorder has told its observer."""

    def __init__(self) -> None:
        self.settled: list[tuple[str | None, CallbackState | None]] = []
        self.refused: list[str] = []

    def attempt_began(self, callback: Callback) -> None:
        """Nothing is begun here."""

    def attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None:
        assert change.cause in {Cause.SETTLED, Cause.LATE}
        self.settled.append((attempt.callback.bet_id, change.state))

    def callback_changed(self, change: CallbackChange) -> None:
        """Bets follow; the database's tests look at that."""

    def chore_failed(self, chore: str, error: Exception) -> None:
        raise AssertionError(chore) from error

    def report_refused(self, attempt: Attempt, error: Exception) -> None:  # noqa: ARG002 - as the protocol has it
        self.refused.append(str(error))


@asynccontextmanager
async def recording(database: Database) -> AsyncIterator[tuple[Outbox, Recorder, Witness]]:
    pool = Pool(database.dispatcher, pool_size=2, application_name="test")
    await pool.open()
    witness = Witness()
    outbox = Outbox(pool, instance="host-1")
    recorder = Recorder(outbox, witness, lambda *_: None)
    running = asyncio.create_task(recorder.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield outbox, recorder, witness
    finally:
        running.cancel()
        await pool.close()


async def claimed(outbox: Outbox) -> dict[str | None, Callback]:
    want = ClaimRequest(
        operator_id=OPERATOR,
        lane=Lane.INTERACTIVE,
        free_slots=10,
        lease_s=60.0,
        rollback_lease_s=60.0,
        amount_format="subunits",
    )
    return {callback.bet_id: callback for callback in await outbox.claim([want])}


def answered(callback: Callback, *, header: str = "x") -> Attempt:
    """The operator has confirmed it."""
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


async def test_a_bet_held_by_a_producers_open_transaction_holds_up_no_other(
    harness: Harness, database: Database
) -> None:
    """A producer that forgot to commit once stopped the settling of all bets of all operators."""
    await harness.place("held")
    await harness.place("free")
    async with recording(database) as (outbox, recorder, witness):
        callbacks = await claimed(outbox)
        async with harness.producer.transaction():
            await harness.rollback("held")
            # It returns although nothing is settled yet, so that its slot is free for the operator's other players.
            await recorder.record(answered(callbacks["held"]))
            await recorder.record(answered(callbacks["free"]))
            assert witness.settled == [("free", CallbackState.DELIVERED)]
            assert recorder.is_recording(callbacks["held"])
            assert not recorder.is_recording(callbacks["free"])
        await recorder.idle()
        assert witness.settled[1:] == [("held", CallbackState.DELIVERED)]
    assert (await harness.bet("free"))["state"] == "open"
    assert (await harness.bet("held"))["state"] == "closing"


async def test_what_a_reaper_says_of_a_held_bet_never_outruns_the_answer(harness: Harness, database: Database) -> None:
    """A confirmed debit was taken for one of unknown fate if the reaper was first at the bet's lock."""
    await harness.place("held")
    async with recording(database) as (outbox, recorder, witness):
        callbacks = await claimed(outbox)
        answer = answered(callbacks["held"])
        interrupted = answer._replace(
            reaped=True,
            report_id=uuid4(),
            outcome=answer.outcome._replace(
                verdict=Verdict.RETRY, state=CallbackState.EXHAUSTED, effect=Effect.UNKNOWN
            ),
        )
        async with harness.producer.transaction():
            await harness.rollback("held")
            await recorder.record(interrupted)
            assert not recorder.is_recording(callbacks["held"])
            told = (interrupted, answer, interrupted)
            await asyncio.gather(*(recorder.record(attempt) for attempt in told))
        await recorder.idle()
    assert witness.settled == [("held", CallbackState.DELIVERED)]
    assert await harness.attempts(callbacks["held"].request_id) == [(1, "delivered")]


async def test_an_answer_that_the_audit_refuses_still_counts_and_holds_up_no_other(
    harness: Harness, database: Database
) -> None:
    """Postgres keeps no NUL in JSON; the transport replaces it, and should anything slip through, the money stands."""
    await harness.place("good")
    await harness.place("bad")
    async with recording(database) as (outbox, recorder, witness):
        callbacks = await claimed(outbox)
        await asyncio.gather(
            recorder.record(answered(callbacks["bad"], header="\0")), recorder.record(answered(callbacks["good"]))
        )
    assert sorted(witness.settled) == [("bad", CallbackState.DELIVERED), ("good", CallbackState.DELIVERED)]
    assert len(witness.refused) == 1
    assert {(await harness.bet(bet_id))["state"] for bet_id in ("good", "bad")} == {"open"}
    row = await harness.owner.fetchrow(
        "select error, response_headers::text from predictu_dispatch.attempt where request_id = $1",
        callbacks["bad"].request_id,
    )
    assert row is not None
    assert row["error"].startswith("the audit refused the exchange")
