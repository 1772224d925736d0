"""Killed and frozen daemons: nothing is lost or doubled, and the audit is complete."""

import uuid

from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import enqueue
from tests.support.postgres_proxy import proxied

INTERRUPTED = ("retry", "unanswered", "interrupted")
DELIVERED = ("delivered", "answered", None)


async def enqueue_of_every_kind(environment: Environment, count: int) -> dict[uuid.UUID, str]:
    """Enqueue `count` due callbacks of every method except PING.

    Returns ids and expected bet states.
    """
    due: dict[uuid.UUID, str] = {}
    for n in range(count):
        due[await environment.harness.place(f"placed-{n}")] = "open"
        due[await enqueue(environment.harness.producer, "BALANCE", {"player_id": "p1", "currency": "EUR"})] = ""
        for method in ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND"):
            await environment.adopt(f"{method}-{n}")
            due[await environment.harness.end(method, f"{method}-{n}")] = "closed"
        await environment.adopt(f"rollback-{n}")
        rollback = await environment.harness.rollback(f"rollback-{n}")
        assert rollback is not None
        due[rollback] = "closed"
    return due


async def test_a_daemon_killed_with_requests_of_every_method_in_flight_loses_and_doubles_none(
    environment: Environment,
) -> None:
    """The operator applied 56 unanswered requests when the daemon is killed.

    Another one retries each.
    """
    count = 8
    environment.operator.hold()
    first = await environment.fleet.start("first")
    due = await enqueue_of_every_kind(environment, count)
    await environment.until_in_flight(len(due))
    first.kill()
    await environment.until_in_flight(0)
    assert await environment.states() == {"in_flight": len(due)}

    await environment.expire_leases("first")
    await environment.fleet.start("second")
    await environment.until_in_flight(len(due))
    environment.operator.release()
    await environment.until_all_final()

    assert await environment.states() == {"delivered": len(due)}
    for request_id in due:
        sent = environment.operator.sent(request_id)
        assert len(sent) == 2, sent
        assert sent[0].body == sent[1].body
        assert await environment.audit(request_id) == [(1, *INTERRUPTED, "first"), (2, *DELIVERED, "second")]
    assert await environment.bets() == {"open": count, "closed": 5 * count}
    # All debits of the adopted bets except BET_LOSE's were returned; the placements debited the
    # same amount.
    assert environment.operator.balance["p1"] == -2 * 500 * count
    # New tokens over the same bytes, one live attempt at a time, no second terminal.
    assert environment.operator.faults == []
    assert await environment.audit_faults() == []


async def test_a_frozen_daemons_late_answer_is_kept_in_the_audit_and_decides_nothing(environment: Environment) -> None:
    """It reads a rejection of a credit while another daemon makes the next attempt."""
    await environment.adopt("b-credit")
    environment.operator.hold()
    environment.operator.refuse("PLAYER_NOT_FOUND")
    frozen = await environment.fleet.start("frozen")
    win = await environment.harness.end("BET_WIN", "b-credit")
    await environment.until_in_flight(1)
    frozen.freeze()
    await environment.expire_leases("frozen")
    environment.operator.refuse(None)
    await environment.fleet.start("second")
    await environment.until_in_flight(2)
    before = await environment.harness.everything()

    environment.operator.release_first()
    frozen.thaw()
    await frozen.until_logged("lease.lost")
    late = [(1, *INTERRUPTED, "frozen"), (1, "late", "answered", "player_not_found", "frozen")]
    assert await environment.audit(win) == late
    assert await environment.harness.everything() == before
    assert await frozen.metric("leases_lost_total") == 1
    assert await frozen.is_ready()

    environment.operator.release()
    await environment.until_all_final()
    assert await environment.audit(win) == [*late, (2, *DELIVERED, "second")]
    assert await environment.bets() == {"closed": 1}
    assert environment.operator.balance["p1"] == 0
    # The two attempts may overlap, because a frozen daemon's request cannot be withdrawn.
    assert environment.operator.faults == [f"BET_WIN {win} has two live attempts"]


async def test_an_expired_lease_is_taken_over_and_its_callback_is_never_sent_late(environment: Environment) -> None:
    """In real time. A daemon is frozen after it sent one bet and claimed another.

    A second one takes over.
    """
    # Freeze before the first attempt times out.
    environment.fleet.write_operator(
        environment.operator.url, interactive={"attempt_timeout_s": 1.0, "connect_timeout_s": 0.3}
    )
    async with proxied(environment.fleet.dsn) as proxy:
        environment.operator.hold()
        # It has seen the clock for a lease's length when the lease expires.
        second = await environment.fleet.start("second")
        second.freeze()
        frozen = await environment.fleet.start(
            "frozen", database={"dsn": proxy.dsn(), "listen_dsn": environment.fleet.dsn}
        )
        sent = await environment.harness.place("b-sent")
        await environment.until_in_flight(1)
        # The claim of the other bet is answered while the daemon is frozen.
        proxy.keep_answer_with("b-claimed")
        claimed = await environment.harness.place("b-claimed")
        await proxy.caught.wait()
        frozen.freeze()
        environment.operator.stop_holding()
        second.thaw()
        await environment.until_all_final()
        assert second.process.poll() is None
        sends = {request_id: len(environment.operator.sent(request_id)) for request_id in (sent, claimed)}
        proxy.release_answers()
        environment.operator.release()
        frozen.thaw()

        async def both_late_answers_are_in_the_audit() -> bool:
            return [row[1] for r in (sent, claimed) for row in await environment.audit(r)].count("late") == 2

        await until("both late answers are in the audit", both_late_answers_are_in_the_audit)
    assert sends == {sent: 2, claimed: 1}
    assert {r: len(environment.operator.sent(r)) for r in (sent, claimed)} == sends
    assert (1, "late", "not_sent", "too_late", "frozen") in await environment.audit(claimed)
    assert await environment.bets() == {"open": 2}
    assert environment.operator.balance["p1"] == -1000
    assert await environment.audit_faults() == []
