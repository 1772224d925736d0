"""Killed and frozen daemons: nothing is lost or doubled, and the audit is complete."""

import uuid

from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import enqueue
from tests.support.postgres_proxy import Trick, proxied

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


async def enqueue_debit_credit_and_rollback(environment: Environment) -> dict[str, uuid.UUID]:
    await environment.adopt("b-credit")
    await environment.adopt("b-rollback")
    rollback = await environment.harness.rollback("b-rollback")
    assert rollback is not None
    return {
        "BET_MAKE": await environment.harness.place("b-debit"),
        "BET_WIN": await environment.harness.end("BET_WIN", "b-credit"),
        "BET_ROLLBACK": rollback,
    }


async def finish_with_another_daemon(
    environment: Environment, due: dict[str, uuid.UUID], *, sends: int, attempts: int
) -> None:
    """Start another daemon.

    Check how often each callback was sent, and that it was applied once.
    """
    await environment.expire_leases("first")
    await environment.fleet.start("second")
    await environment.until_all_final()
    for method, request_id in due.items():
        assert len(environment.operator.sent(request_id)) == sends, method
        audit = await environment.audit(request_id)
        interrupted = [(n, *INTERRUPTED, "first") for n in range(1, attempts)]
        assert audit == [*interrupted, (attempts, *DELIVERED, "second")], method
    assert await environment.bets() == {"open": 1, "closed": 2}
    assert environment.operator.balance["p1"] == -500 + (-500 + 500) + (-500 + 500)
    assert environment.operator.faults == []


async def test_a_daemon_killed_between_its_claim_and_its_request_has_sent_nothing(environment: Environment) -> None:
    async with proxied(environment.fleet.dsn) as proxy:
        due = await enqueue_debit_credit_and_rollback(environment)
        # One claim for each lane.
        proxy.on_next("predictu_dispatch.claim(", Trick.KEEP_ANSWER, times=2)
        first = environment.fleet.spawn("first", database={"dsn": proxy.dsn()})

        async def all_are_claimed() -> bool:
            return await environment.states() == {"in_flight": 3}

        await until("the claim is committed", all_are_claimed)
        first.kill()
        assert environment.operator.requests == []
    await finish_with_another_daemon(environment, due, sends=1, attempts=2)


async def test_a_daemon_killed_with_unread_answers_retries(environment: Environment) -> None:
    """The operator has answered; only the same request_id keeps the wallet correct."""
    environment.operator.hold()
    first = await environment.fleet.start("first")
    due = await enqueue_debit_credit_and_rollback(environment)
    await environment.until_in_flight(3)
    first.freeze()
    environment.operator.release()
    await environment.until_in_flight(0)
    first.kill()
    await finish_with_another_daemon(environment, due, sends=2, attempts=2)


async def test_a_daemon_killed_before_its_settle_arrives_retries(environment: Environment) -> None:
    async with proxied(environment.fleet.dsn) as proxy:
        first = await environment.fleet.start("first", database={"dsn": proxy.dsn()})
        proxy.on_next("predictu_dispatch.settle(", Trick.LOSE_REQUEST)
        due = await enqueue_debit_credit_and_rollback(environment)
        await proxy.caught.wait()
        await until("all three are answered", lambda: len(environment.operator.requests) == 3)
        first.kill()
        assert await environment.states() == {"in_flight": 3}
    await finish_with_another_daemon(environment, due, sends=2, attempts=2)


async def test_a_committed_settle_holds_although_its_daemon_was_killed(environment: Environment) -> None:
    """The win that waited for it is released."""
    async with proxied(environment.fleet.dsn) as proxy:
        first = await environment.fleet.start("first", database={"dsn": proxy.dsn()})
        environment.operator.hold()
        placement = await environment.harness.place()
        win = await environment.harness.end()
        await environment.until_in_flight(1)
        proxy.on_next("predictu_dispatch.settle(", Trick.KEEP_ANSWER)
        environment.operator.release()

        async def it_is_committed() -> bool:
            return await environment.harness.state(placement) == "delivered"

        await until("the settle is committed", it_is_committed)
        first.kill()
    await environment.expire_leases("first")
    await environment.fleet.start("second")
    await environment.until_all_final()
    assert await environment.audit(placement) == [(1, *DELIVERED, "first")]
    assert (await environment.audit(win))[-1][1:] == (*DELIVERED, "second")
    assert len(environment.operator.sent(placement)) == 1
    assert await environment.bets() == {"closed": 1}
    assert environment.operator.faults == await environment.audit_faults() == []


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


async def test_an_expired_lease_is_taken_over_and_its_callback_is_never_sent_late(
    environment: Environment,
) -> None:
    """In real time. A daemon is frozen after it sent one bet and claimed another.

    A second one takes over.
    """
    # Freeze before the first attempt times out.
    environment.fleet.write_operator(
        environment.operator.url, interactive={"attempt_timeout_s": 1.0, "connect_timeout_s": 0.3}
    )
    async with proxied(environment.fleet.dsn) as proxy:
        environment.operator.hold()
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
        second = await environment.fleet.start("second")
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
