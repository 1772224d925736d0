"""SIGTERM: no claim any more; what is in flight is finished or given back, everything is settled, exit code 0."""

import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.postgres import Database
from tests.support.stage import Stage, open_stage


@pytest.fixture
async def stage(tmp_path: Path, database: Database) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, database) as stage:
        yield stage


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
async def test_what_is_in_flight_is_finished_and_nothing_else_is_begun(stage: Stage, asked: signal.Signals) -> None:
    stage.operator.hold()
    daemon = await stage.fleet.start("host-1")
    await stage.adopt("b-won")
    in_flight = [await stage.ledger.place("b-placed"), await stage.ledger.end("BET_WIN", "b-won")]
    await stage.held(2)

    daemon.process.send_signal(asked)
    await daemon.has_said("daemon.draining")
    assert await daemon.get("/readyz") == (503, "draining\n")
    assert (await daemon.get("/healthz"))[0] == 200
    # One is enqueued now, and one becomes due through what is settled now.
    too_late = await stage.ledger.place("b-too-late")
    released = await stage.ledger.end("BET_WIN", "b-placed")
    # Asking twice is no reason for haste.
    daemon.process.send_signal(asked)
    stage.operator.release()

    assert await daemon.exited() == 0
    for request_id in in_flight:
        assert await stage.audit(request_id) == [(1, "delivered", "answered", None, "host-1")]
    for request_id in (too_late, released):
        callback = await stage.ledger.callback(request_id)
        assert (callback["state"], callback["attempts"]) == ("ready", 0)
    assert len(stage.operator.requests) == 2
    assert daemon.lines()[-1]["event"] == "daemon.stopped"


async def test_what_outlasts_the_drain_is_given_back_as_interrupted_and_another_daemon_finishes_it(
    stage: Stage,
) -> None:
    drain_s = 0.3
    stage.operator.hold()
    daemon = await stage.fleet.start("host-1", daemon={"drain_s": drain_s})
    await stage.adopt("b-won")
    await stage.adopt("b-rolled-back")
    rollback = await stage.ledger.rollback("b-rolled-back")
    interrupted = [await stage.ledger.place("b-placed"), await stage.ledger.end("BET_WIN", "b-won"), rollback]
    await stage.held(3)

    asked_at_s = time.monotonic()
    daemon.ask_to_stop()
    assert await daemon.exited() == 0
    took_s = time.monotonic() - asked_at_s
    # Nothing had to be waited for after drain_s: the interrupted ones were settled at once.
    assert drain_s <= took_s < drain_s + 3.0
    for request_id in interrupted:
        assert await stage.audit(request_id) == [(1, "retry", "unanswered", "interrupted", "host-1")]
        callback = await stage.ledger.callback(request_id)
        assert (callback["state"], callback["effect"], callback["lease_until"]) == ("ready", "unknown", None)

    stage.operator.release()
    await stage.fleet.start("host-2")
    await stage.all_final()
    for request_id in interrupted:
        assert (await stage.audit(request_id))[1:] == [(2, "delivered", "answered", None, "host-2")]
        first, second = stage.operator.sent(request_id)
        assert first.body == second.body
    assert await stage.bets() == {"open": 1, "closed": 2}
    assert stage.operator.balance["p1"] == -500
    assert stage.operator.faults == await stage.audit_faults() == []
