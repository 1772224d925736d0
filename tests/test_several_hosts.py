"""Two hosts, each with a daemon: one is cut off from Postgres, or from the operator, and comes back by itself.

Nobody is told of a cut: what is sent is gone, as with a pulled plug. The operator counts by itself what it has under
way, and keeps its wallets; see tests/support/hosts.py for the hosts.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from predictu_dispatch.core.callback import LEASE_MARGIN_S
from predictu_dispatch.core.fleet import ANNOUNCED_EVERY_S, SHARE_VALID_S, SILENCE_ALLOWED_S
from tests.support.circuits import tell
from tests.support.crowd import STAKE, announced_again, place_many, shared
from tests.support.daemons import Daemon, until
from tests.support.hosts import Cable, Hall, open_hall, why_no_hosts
from tests.support.postgres import Database
from tests.support.postgres_proxy import Trick
from tests.support.stage import Stage, open_stage

A, B = "host-a", "host-b"
LIMIT, HALF = 12, 6
BETS, ATTEMPT_S = 300, 4.0
ANNOUNCE, NO_STATEMENT = "predictu_dispatch.announce(", "\0"
DELIVERED = ("delivered", "answered", None)
LATE_MACHINE_S = 4.0
"""What a busy machine may add to any of the spans below."""


@pytest.fixture
async def hall(tmp_path: Path, database: Database) -> AsyncIterator[Hall]:
    if reason := why_no_hosts():
        pytest.skip(reason)
    async with open_stage(tmp_path, database) as stage, open_hall(stage, A, B) as hall:
        yield hall


async def under_way(stage: Stage, instance: str) -> list[UUID]:
    """What this daemon has leased, as the database knows."""
    rows = await stage.ledger.owner.fetch(
        "select request_id from predictu_dispatch.callback where state = 'in_flight' and leased_by = $1"
        " order by request_id",
        instance,
    )
    return [row["request_id"] for row in rows]


async def has_under_way(stage: Stage, instance: str, count: int) -> None:
    """This daemon has so many callbacks leased at once."""

    async def so_many() -> bool:
        return len(await under_way(stage, instance)) == count

    await until(f"{instance} has {count} under way", so_many)


async def rows(stage: Stage, instance: str, verdict: str, evidence: str, reason: str | None) -> int:
    """How many audit rows of this daemon say so."""
    count: int = await stage.ledger.owner.fetchval(
        "select count(*) from predictu_dispatch.attempt"
        " where instance = $1 and verdict = $2 and evidence = $3 and reason is not distinct from $4",
        *(instance, verdict, evidence, reason),
    )
    return count


async def all_placed(stage: Stage, count: int) -> None:
    """Every bet is open, booked once, and its audit is whole; no promise to the operator was broken."""
    await stage.all_final()
    assert await stage.states() == {"delivered": count}
    assert await stage.bets() == {"open": count}
    assert sum(stage.operator.balance.values()) == -STAKE * count
    assert stage.operator.faults == await stage.audit_faults() == []


async def test_a_host_cut_off_from_postgres_stops_is_replaced_reports_late_and_comes_back(hall: Hall) -> None:
    """Its requests go on meanwhile: some are answered while it can tell nobody, some are given up."""
    stage, operator, cut_off = hall.stage, hall.stage.operator, hall.hosts[A]
    hall.write_operator(interactive={"max_in_flight": LIMIT, "attempt_timeout_s": ATTEMPT_S})
    a, b = await hall.start()
    await shared(stage, host_a=HALF, host_b=HALF)
    operator.hold()
    await place_many(stage, BETS)
    await until("all slots are busy", lambda: operator.busy["interactive"] == LIMIT)
    own, others = await under_way(stage, A), await under_way(stage, B)
    answered, hanging = own[:3], own[3:]

    cut_off.pull(Cable.POSTGRES)
    cut_at_s = time.monotonic()
    # From here on each answer takes so long that there is work for all slots until the end.
    operator.answers_in_s = 0.5
    operator.go_on()
    operator.release_only([*answered, *others])
    await is_replaced(hall, a, cut_at_s)
    assert operator.busiest["interactive"] <= LIMIT + len(hanging)
    await a.has_said("database.lost")
    assert (await a.get("/healthz"))[0] == 200
    assert await told_late(stage) == [0, 0]
    await heal_without_a_word_of_its_share(hall)
    await shared(stage, host_a=HALF, host_b=HALF)
    await has_under_way(stage, A, HALF)
    operator.answers_in_s = 0.0
    await all_placed(stage, 2 * BETS)

    assert operator.busiest["interactive"] <= LIMIT
    for request_ids, heard in ((answered, ("answered", None)), (hanging, ("unanswered", "timeout"))):
        for request_id in request_ids:
            interrupted, late, delivered = await stage.audit(request_id)
            assert interrupted == (1, "retry", "unanswered", "interrupted", A)
            assert late == (1, "late", *heard, A)
            assert delivered[:4] == (2, *DELIVERED)
            first, second = operator.sent(request_id)
            assert first.body == second.body
    assert len(operator.requests) == 2 * BETS + len(own), "nothing else was sent twice"
    assert await a.figure("leases_lost_total") == len(own)
    assert await a.is_ready()
    assert [daemon.process.poll() for daemon in (a, b)] == [None, None]


async def is_replaced(hall: Hall, a: Daemon, cut_at_s: float) -> None:
    """It knows that it may send nothing more; the other has its slots, then its leases, each within its time."""
    no_share = "this daemon could not announce itself, and so has no share of any operator\n"

    async def it_knows() -> bool:
        return await a.get("/readyz") == (503, no_share)

    await until("it knows that its share is over", it_knows)
    assert time.monotonic() - cut_at_s < SHARE_VALID_S + LATE_MACHINE_S
    await shared(hall.stage, host_b=LIMIT)
    await has_under_way(hall.stage, B, LIMIT)
    replaced_after_s = time.monotonic() - cut_at_s
    assert replaced_after_s < SILENCE_ALLOWED_S + 2 * ANNOUNCED_EVERY_S + LATE_MACHINE_S
    await has_under_way(hall.stage, A, 0)
    reaped_after_s = time.monotonic() - cut_at_s
    assert reaped_after_s < ATTEMPT_S + LEASE_MARGIN_S + LATE_MACHINE_S
    tell(f"the other host has its slots after {replaced_after_s:.1f} s, and its leases after {reaped_after_s:.1f} s")


async def heal_without_a_word_of_its_share(hall: Hall) -> None:
    """It reaches Postgres again, and only its announcements are not answered for a while: so it sends nothing.

    The other one has all slots meanwhile, and its own are free as soon as its late reports are told.
    """
    stage, cut_off = hall.stage, hall.hosts[A]
    await place_many(stage, BETS)
    cut_off.proxy.on_next(ANNOUNCE, Trick.KEEP_ANSWER, times=10_000)
    stage.operator.busiest.clear()
    cut_off.plug(Cable.POSTGRES)
    healed_at_s = time.monotonic()

    async def it_has_told_what_it_knows() -> bool:
        return await told_late(stage) == [3, 3]

    await until("it has told what it knows", it_has_told_what_it_knows)
    tell(f"healed, it has told what it knows after {time.monotonic() - healed_at_s:.1f} s")
    await announced_again(stage, B, times=1)
    assert await under_way(stage, A) == []
    assert stage.operator.busiest["interactive"] <= LIMIT
    cut_off.proxy.on_next(NO_STATEMENT, Trick.KEEP_ANSWER)
    cut_off.proxy.give_back()


async def told_late(stage: Stage) -> list[int]:
    """How many answers and how many timeouts the host that was cut off has told too late."""
    return [await rows(stage, A, "late", *what) for what in (("answered", None), ("unanswered", "timeout"))]


async def test_a_host_cut_off_from_the_operator_loses_no_bet_and_nothing_it_gave_up_arrives_later(hall: Hall) -> None:
    """Three answers to it are lost; three requests go out on connections that lead nowhere; then it cannot connect."""
    stage, operator, cut_off = hall.stage, hall.stage.operator, hall.hosts[A]
    hall.write_operator(
        interactive={"max_in_flight": LIMIT, "attempt_timeout_s": 2.5, "connect_timeout_s": 0.3, "max_attempts": 100}
    )
    await hall.start()
    await shared(stage, host_a=HALF, host_b=HALF)
    operator.hold()
    await place_many(stage, LIMIT)
    await until("all slots are busy", lambda: operator.busy["interactive"] == LIMIT)
    own = await under_way(stage, A)
    operator.release_only([*own[3:], *await under_way(stage, B)])
    await has_under_way(stage, A, 3)
    await has_under_way(stage, B, 0)

    cut_off.pull(Cable.OPERATOR)
    cut_at_s = time.monotonic()
    # Slow answers, so that the other host leaves enough for this one to try.
    operator.answers_in_s = 0.3
    operator.release()
    await place_many(stage, 120)

    async def it_has_given_up_everything() -> bool:
        timeouts = await rows(stage, A, "retry", "unanswered", "timeout")
        return timeouts >= 6 and await rows(stage, A, "retry", "not_sent", "connect_timeout") >= HALF

    await until("three answers, three requests and some connections are given up", it_has_given_up_everything)
    assert await rows(stage, B, *DELIVERED) > HALF, "the other host goes on"
    healed_at_s = time.monotonic()
    cut_off.plug(Cable.OPERATOR)
    operator.answers_in_s = 0.0
    await all_placed(stage, 120 + LIMIT)
    # What a kernel keeps it sends again after twice the time it has tried for; see tcp(7). None must come any more.
    twice_s = cut_at_s + 2 * (healed_at_s - cut_at_s) + 0.5
    await until("what was given up would have come", lambda: time.monotonic() > twice_s)
    answered = await stage.ledger.owner.fetch(
        "select request_id from predictu_dispatch.attempt where evidence = 'answered'"
    )
    arrived = Counter(UUID(request.request_id) for request in operator.requests)
    assert arrived - Counter(row["request_id"] for row in answered) == Counter(own[:3])
    assert operator.faults == []
