"""SIGTERM: no further claims, attempts finish, everything is settled, exit code 0."""

import signal
import time

import pytest

from tests.support.daemons import until
from tests.support.environment import Environment


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
async def test_attempts_in_flight_finish_and_no_other_begins(environment: Environment, asked: signal.Signals) -> None:
    environment.operator.hold()
    daemon = await environment.fleet.start("host-1")
    await environment.adopt("b-won")
    in_flight = [await environment.harness.place("b-placed"), await environment.harness.end("BET_WIN", "b-won")]
    await environment.until_in_flight(2)

    daemon.process.send_signal(asked)
    await daemon.until_logged("drain.started")
    assert await daemon.get("/readyz") == (503, "draining\n")
    assert (await daemon.get("/healthz"))[0] == 200
    # One is enqueued now, and one becomes ready by a settle.
    too_late = await environment.harness.place("b-too-late")
    released = await environment.harness.end("BET_WIN", "b-placed")
    # A second signal does not shorten the drain.
    daemon.process.send_signal(asked)
    environment.operator.release()

    assert await daemon.exited() == 0
    for request_id in in_flight:
        assert await environment.audit(request_id) == [(1, "delivered", "answered", None, "host-1")]
    for request_id in (too_late, released):
        callback = await environment.harness.callback(request_id)
        assert (callback["state"], callback["attempts"]) == ("ready", 0)
    assert len(environment.operator.requests) == 2
    assert daemon.lines()[-1]["event"] == "daemon.stopped"


async def test_attempts_longer_than_drain_s_are_interrupted_and_finished_by_another_daemon(
    environment: Environment,
) -> None:
    drain_s = 0.3
    environment.operator.hold()
    daemon = await environment.fleet.start("host-1", daemon={"drain_s": drain_s})
    await environment.adopt("b-won")
    await environment.adopt("b-rolled-back")
    rollback = await environment.harness.rollback("b-rolled-back")
    interrupted = [
        await environment.harness.place("b-placed"),
        await environment.harness.end("BET_WIN", "b-won"),
        rollback,
    ]
    await environment.until_in_flight(3)

    asked_at_s = time.monotonic()
    daemon.terminate()
    assert await daemon.exited() == 0
    took_s = time.monotonic() - asked_at_s
    # The interrupted attempts were settled right after drain_s.
    assert drain_s <= took_s < drain_s + 3.0
    for request_id in interrupted:
        assert await environment.audit(request_id) == [(1, "retry", "unanswered", "interrupted", "host-1")]
        callback = await environment.harness.callback(request_id)
        assert (callback["state"], callback["effect"], callback["lease_until"]) == ("ready", "unknown", None)

    environment.operator.release()
    await environment.fleet.start("host-2")
    await environment.until_all_final()
    for request_id in interrupted:
        assert (await environment.audit(request_id))[1:] == [(2, "delivered", "answered", None, "host-2")]
        first, second = environment.operator.sent(request_id)
        assert first.body == second.body
    assert await environment.bets() == {"open": 1, "closed": 2}
    assert environment.operator.balance["p1"] == -500
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_an_answer_that_waits_for_a_late_retry_is_settled_in_the_drain(environment: Environment) -> None:
    """Its next retry would come after the end of the process, the only one that has the answer."""
    owner = environment.harness.owner
    daemon = await environment.fleet.start("host-1", daemon={"drain_s": 0.3})
    await owner.execute(
        "create sequence public.tried; grant usage on sequence public.tried to public;"
        "create function public.broken() returns trigger language plpgsql as $$ begin"
        "  if new.request_body like '%b-bad%' then perform nextval('public.tried');"
        "    raise exception 'not stored' using errcode = 'PD900'; end if; return new; end $$;"
        "create trigger broken before insert on predictu_dispatch.attempt_record"
        " for each row execute function public.broken()"
    )
    bad = await environment.harness.place("b-bad")
    await until_tried(environment, 2)
    # It is settled, so the other one is the cause itself, and its retries become rare.
    await environment.harness.place("b-good")
    await until_tried(environment, 6)
    await owner.execute("drop trigger broken on predictu_dispatch.attempt_record")
    daemon.terminate()
    assert await daemon.exited() == 0
    assert daemon.lines("answer.lost") == []
    assert await environment.audit(bad) == [(1, "delivered", "answered", None, "host-1")]


async def until_tried(environment: Environment, times: int) -> None:
    async def is_tried() -> bool:
        return bool(await environment.harness.owner.fetchval("select last_value >= $1 from public.tried", times))

    await until(f"it was tried {times} times", is_tried)
