"""An operator that repeats a long answer fills the audit with it only once."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from predictu_dispatch.core.callback import Callback, Evidence, Exchange
from predictu_dispatch.core.lifecycle import Attempt, CallbackState, outcome_of
from predictu_dispatch.core.operator_settings import SETTLEMENT
from predictu_dispatch.core.verdict import Statuses, judge
from tests.flow.test_recorder import claimed, recording
from tests.support.command_line import command_line_for
from tests.support.harness import Harness
from tests.support.postgres import Database

PAGE = b"<p>Busy</p>" * 5_958
"""65,538 bytes."""
ANSWER = b'{"status":"OK","balance":1,"note":"%s"}' % (b"x" * 10_000)
ROWS = "select * from predictu_dispatch.attempt where request_id = $1 order by attempt"


def answered(callback: Callback, status: int, body: bytes, *, header: str = "x") -> Attempt:
    exchange = Exchange(Evidence.ANSWERED, 1.0, status=status, headers=(("Server", header),), body=body)
    judgement = judge(callback, exchange, Statuses.of(), now=datetime.now(UTC))
    outcome = outcome_of(callback, judgement, SETTLEMENT, recheck_s=0.0, elapsed_s=0.0, jitter=0.0)
    if outcome.state is CallbackState.READY:
        outcome = outcome._replace(due_in_s=0.0)
    return Attempt(
        callback=callback,
        instance="host-1",
        finished_at=callback.leased_at,
        exchange=exchange,
        judgement=judgement,
        outcome=outcome,
        report_id=uuid4(),
    )


async def test_a_repeated_answer_is_stored_once_and_shown_as_such(
    harness: Harness, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = await harness.place("b-1")
    async with recording(database) as (outbox, recorder, _):
        for status, body in ((503, PAGE), (503, PAGE), (500, PAGE[1:]), (503, PAGE), (200, ANSWER)):
            await recorder.record(answered((await claimed(outbox))["b-1"], status, body))
        await recorder.idle()
    rows = await harness.owner.fetch(ROWS, request_id)
    assert [row["response_body"] for row in rows] == [PAGE, PAGE[:4096], PAGE[1:], PAGE[:4096], ANSWER]
    assert [row["response_body_repeats"] for row in rows] == [None, 1, None, 1, None]
    digest = hashlib.sha256(PAGE)
    assert [row["response_body_sha256"] for row in rows] == [None, digest.digest(), None, digest.digest(), None]

    monkeypatch.setenv("COLUMNS", "80")
    cli = command_line_for(tmp_path, database.support)
    _, text, _ = await cli.run("show", str(request_id))
    said = f"the same answer as attempt 1, 65,538 bytes, SHA-256 {digest.hexdigest()}; the first 4,096 are kept"
    assert " ".join(text.split()).count(said) == 2
    _, text, _ = await cli.run("show", str(request_id), "--json")
    [callback] = json.loads(text)["callbacks"]
    assert [one["response_body_repeats"] for one in callback["audit"]] == [None, 1, None, 1, None]
    assert callback["audit"][1]["response_body_sha256"] == digest.hexdigest()


async def test_an_answer_that_the_audit_refused_is_not_referred_to(harness: Harness, database: Database) -> None:
    request_id = await harness.place("b-1")
    async with recording(database) as (outbox, recorder, observer):
        for header in ("\0", "x", "x"):
            await recorder.record(answered((await claimed(outbox))["b-1"], 503, PAGE, header=header))
        await recorder.idle()
    assert len(observer.refused) == 1
    rows = await harness.owner.fetch(ROWS, request_id)
    assert [(row["response_body"], row["response_body_repeats"]) for row in rows] == [
        (b"", None),
        (PAGE, None),
        (PAGE[:4096], 2),
    ]
