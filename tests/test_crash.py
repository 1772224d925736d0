"""Daemons are killed or frozen at the worst moments: nothing is lost, nothing is doubled, and the audit can tell."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.daemons import until
from tests.support.ledger import enqueue
from tests.support.postgres import Database
from tests.support.postgres_proxy import Trick, proxied
from tests.support.stage import Stage, open_stage

INTERRUPTED = ("retry", "unanswered", "interrupted")
DELIVERED = ("delivered", "answered", None)


@pytest.fixture
async def stage(tmp_path: Path, database: Database) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, database) as stage:
        yield stage


async def enqueue_of_every_kind(stage: Stage, count: int) -> dict[uuid.UUID, str]:
    """`count` due callbacks of every method but PING: their ids with what has to become of their bets."""
    due: dict[uuid.UUID, str] = {}
    for n in range(count):
        due[await stage.ledger.place(f"placed-{n}")] = "open"
        due[await enqueue(stage.ledger.producer, "BALANCE", {"player_id": "p1", "currency": "EUR"})] = ""
        for method in ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND"):
            await stage.adopt(f"{method}-{n}")
            due[await stage.ledger.end(method, f"{method}-{n}")] = "closed"
        await stage.adopt(f"rollback-{n}")
        rollback = await stage.ledger.rollback(f"rollback-{n}")
        assert rollback is not None
        due[rollback] = "closed"
    return due


async def test_a_daemon_killed_with_requests_of_every_method_in_flight_loses_and_doubles_none(stage: Stage) -> None:
    """56 requests are booked by the operator and unanswered when the daemon dies; another one sends each once more."""
    count = 8
    stage.operator.hold()
    first = await stage.fleet.start("first")
    due = await enqueue_of_every_kind(stage, count)
    await stage.held(len(due))
    first.kill()
    await stage.held(0)
    assert await stage.states() == {"in_flight": len(due)}

    await stage.expire_leases("first")
    await stage.fleet.start("second")
    await stage.held(len(due))
    stage.operator.release()
    await stage.all_final()

    assert await stage.states() == {"delivered": len(due)}
    for request_id in due:
        sent = stage.operator.sent(request_id)
        assert len(sent) == 2, sent
        assert sent[0].body == sent[1].body
        assert await stage.audit(request_id) == [(1, *INTERRUPTED, "first"), (2, *DELIVERED, "second")]
    assert await stage.bets() == {"open": count, "closed": 5 * count}
    # Of the adopted bets' debits, all but that of BET_LOSE came back; the placements took as much again.
    assert stage.operator.balance["p1"] == -2 * 500 * count
    # Fresh tokens over the same bytes, one live attempt at a time, no second terminal: the operator saw none broken.
    assert stage.operator.faults == []
    assert await stage.audit_faults() == []


async def enqueue_debit_credit_and_rollback(stage: Stage) -> dict[str, uuid.UUID]:
    await stage.adopt("b-credit")
    await stage.adopt("b-rollback")
    rollback = await stage.ledger.rollback("b-rollback")
    assert rollback is not None
    return {
        "BET_MAKE": await stage.ledger.place("b-debit"),
        "BET_WIN": await stage.ledger.end("BET_WIN", "b-credit"),
        "BET_ROLLBACK": rollback,
    }


async def finish_with_another_daemon(stage: Stage, due: dict[str, uuid.UUID], *, sends: int, attempts: int) -> None:
    """Another daemon takes over, and each callback was sent and attempted so often in the end, and booked once."""
    await stage.expire_leases("first")
    await stage.fleet.start("second")
    await stage.all_final()
    for method, request_id in due.items():
        assert len(stage.operator.sent(request_id)) == sends, method
        audit = await stage.audit(request_id)
        interrupted = [(n, *INTERRUPTED, "first") for n in range(1, attempts)]
        assert audit == [*interrupted, (attempts, *DELIVERED, "second")], method
    assert await stage.bets() == {"open": 1, "closed": 2}
    assert stage.operator.balance["p1"] == -500 + (-500 + 500) + (-500 + 500)
    assert stage.operator.faults == []


async def test_a_daemon_killed_between_its_claim_and_its_request_has_sent_nothing(stage: Stage) -> None:
    async with proxied(stage.fleet.dsn) as proxy:
        due = await enqueue_debit_credit_and_rollback(stage)
        # One claim for each lane.
        proxy.on_next("predictu_dispatch.claim(", Trick.KEEP_ANSWER, times=2)
        first = stage.fleet.spawn("first", database={"dsn": proxy.dsn()})

        async def all_are_claimed() -> bool:
            return await stage.states() == {"in_flight": 3}

        await until("the claim is committed", all_are_claimed)
        first.kill()
        assert stage.operator.requests == []
    await finish_with_another_daemon(stage, due, sends=1, attempts=2)


async def test_a_daemon_killed_with_the_answers_in_its_sockets_sends_again(stage: Stage) -> None:
    """The operator has answered, and nobody has read it: only idempotency by the same request_id saves the wallet."""
    stage.operator.hold()
    first = await stage.fleet.start("first")
    due = await enqueue_debit_credit_and_rollback(stage)
    await stage.held(3)
    first.freeze()
    stage.operator.release()
    await stage.held(0)
    first.kill()
    await finish_with_another_daemon(stage, due, sends=2, attempts=2)


async def test_a_daemon_killed_before_its_settle_arrives_sends_again(stage: Stage) -> None:
    async with proxied(stage.fleet.dsn) as proxy:
        first = await stage.fleet.start("first", database={"dsn": proxy.dsn()})
        proxy.on_next("predictu_dispatch.settle(", Trick.LOSE_REQUEST)
        due = await enqueue_debit_credit_and_rollback(stage)
        await proxy.caught.wait()
        await until("all three are answered", lambda: len(stage.operator.requests) == 3)
        first.kill()
        assert await stage.states() == {"in_flight": 3}
    await finish_with_another_daemon(stage, due, sends=2, attempts=2)


async def test_a_settle_that_its_daemon_did_not_live_to_see_stands(stage: Stage) -> None:
    """It is committed, and the win that waited for it is released; only the daemon never heard of it."""
    async with proxied(stage.fleet.dsn) as proxy:
        first = await stage.fleet.start("first", database={"dsn": proxy.dsn()})
        stage.operator.hold()
        placement = await stage.ledger.place()
        win = await stage.ledger.end()
        await stage.held(1)
        proxy.on_next("predictu_dispatch.settle(", Trick.KEEP_ANSWER)
        stage.operator.release()

        async def it_is_committed() -> bool:
            return await stage.ledger.state(placement) == "delivered"

        await until("the settle is committed", it_is_committed)
        first.kill()
    await stage.expire_leases("first")
    await stage.fleet.start("second")
    await stage.all_final()
    assert await stage.audit(placement) == [(1, *DELIVERED, "first")]
    assert (await stage.audit(win))[-1][1:] == (*DELIVERED, "second")
    assert len(stage.operator.sent(placement)) == 1
    assert await stage.bets() == {"closed": 1}
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_a_frozen_daemons_late_answer_is_kept_in_the_audit_and_decides_nothing(stage: Stage) -> None:
    """It wakes to hear that a credit was refused, while another daemon waits for the answer to the next attempt."""
    await stage.adopt("b-credit")
    stage.operator.hold()
    stage.operator.refuse("PLAYER_NOT_FOUND")
    frozen = await stage.fleet.start("frozen")
    win = await stage.ledger.end("BET_WIN", "b-credit")
    await stage.held(1)
    frozen.freeze()
    await stage.expire_leases("frozen")
    stage.operator.refuse(None)
    await stage.fleet.start("second")
    await stage.held(2)
    before = await stage.ledger.everything()

    stage.operator.release_first()
    frozen.thaw()
    await frozen.has_said("attempt.late")
    late = [(1, *INTERRUPTED, "frozen"), (1, "late", "answered", "player_not_found", "frozen")]
    assert await stage.audit(win) == late
    assert await stage.ledger.everything() == before
    assert await frozen.figure("leases_lost_total") == 1
    assert await frozen.is_ready()

    stage.operator.release()
    await stage.all_final()
    assert await stage.audit(win) == [*late, (2, *DELIVERED, "second")]
    assert await stage.bets() == {"closed": 1}
    assert stage.operator.balance["p1"] == 0
    # Nobody can take back what a frozen host has sent: that the two overlapped is all there was to see.
    assert stage.operator.faults == [f"BET_WIN {win} has two live attempts"]


async def test_a_lease_that_really_runs_out_is_taken_over_and_its_callback_is_never_sent_late(stage: Stage) -> None:
    """No clock is moved. One daemon has sent one bet and claimed another when it is frozen; a second one takes over."""
    # The freeze must come before the first attempt has timed out.
    stage.fleet.write_operator(stage.operator.url, interactive={"attempt_timeout_s": 1.0, "connect_timeout_s": 0.3})
    async with proxied(stage.fleet.dsn) as proxy:
        stage.operator.hold()
        frozen = await stage.fleet.start("frozen", database={"dsn": proxy.dsn(), "listen_dsn": stage.fleet.dsn})
        sent = await stage.ledger.place("b-sent")
        await stage.held(1)
        # The claim that finds the other bet is answered while its daemon is frozen.
        proxy.keep_answer_that_holds("b-claimed")
        claimed = await stage.ledger.place("b-claimed")
        await proxy.caught.wait()
        frozen.freeze()
        stage.operator.go_on()
        second = await stage.fleet.start("second")
        await stage.all_final()
        assert second.process.poll() is None
        sends = {request_id: len(stage.operator.sent(request_id)) for request_id in (sent, claimed)}
        proxy.give_back()
        stage.operator.release()
        frozen.thaw()

        async def both_late_answers_are_in_the_audit() -> bool:
            return [row[1] for r in (sent, claimed) for row in await stage.audit(r)].count("late") == 2

        await until("both late answers are in the audit", both_late_answers_are_in_the_audit)
    assert sends == {sent: 2, claimed: 1}
    assert {r: len(stage.operator.sent(r)) for r in (sent, claimed)} == sends
    assert (1, "late", "not_sent", "too_late", "frozen") in await stage.audit(claimed)
    assert await stage.bets() == {"open": 2}
    assert stage.operator.balance["p1"] == -1000
    assert await stage.audit_faults() == []
