"""Several daemons share one database: a callback is one daemon's at a time, and one's death is the others' work."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.daemons import until
from tests.support.ledger import connected
from tests.support.postgres import Database
from tests.support.postgres_proxy import proxied
from tests.support.stage import Stage, open_stage

SETTLE = "predictu_dispatch.settle("


@pytest.fixture
async def stage(tmp_path: Path, database: Database) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, database) as stage:
        yield stage


async def enqueue_bets(stage: Stage, count: int) -> None:
    """`count` bets: a third each is won, lost and rolled back, which is enqueued while the debit is on its way."""
    for n in range(count):
        bet_id = f"b-{n}"
        await stage.ledger.place(bet_id)
        if n % 3 == 2:
            await stage.ledger.rollback(bet_id)
        else:
            await stage.ledger.end("BET_WIN" if n % 3 else "BET_LOSE", bet_id)


async def test_two_daemons_never_have_the_same_callback_and_finish_every_bet(stage: Stage) -> None:
    count = 150
    # Few slots for each, so that both are needed; a claim of either is between two claims of the other.
    few = {"max_in_flight": 4}
    stage.fleet.write_operator(stage.operator.url, interactive=few, settlement=few)
    daemons = [stage.fleet.spawn(instance) for instance in ("host-1", "host-2")]
    for daemon in daemons:
        await daemon.ready()
    await enqueue_bets(stage, count)
    await stage.all_final()

    bets = await stage.bets()
    assert set(bets) <= {"closed", "void"}
    assert sum(bets.values()) == count
    assert stage.operator.faults == await stage.audit_faults() == []
    # No crash, no slow answer: nothing was sent twice, and nobody lost a lease.
    assert len({request.request_id for request in stage.operator.requests}) == len(stage.operator.requests)
    rows = await stage.ledger.owner.fetch(
        "select instance, count(*), max(attempt) as last from predictu_dispatch.attempt group by instance"
    )
    assert {row["instance"]: row["last"] for row in rows} == {"host-1": 1, "host-2": 1}
    assert sum(row["count"] for row in rows) == len(stage.operator.requests)
    assert stage.operator.balance["p1"] == -500 * (count // 3)


async def test_two_daemons_finish_what_a_third_one_died_of_and_reap_it_once(stage: Stage, database: Database) -> None:
    """Both come to reap the same leases, because nobody can settle anything until somebody lets go of the bets."""
    count = 30
    stage.operator.hold()
    dying = await stage.fleet.start("dying")
    placements = [await stage.ledger.place(f"b-{n}") for n in range(count)]
    await stage.held(count)
    async with (
        proxied(stage.fleet.dsn) as one,
        proxied(stage.fleet.dsn) as other,
        connected(database.owner, 1) as [holder],
    ):
        proxies = (one, other)
        survivors = [stage.fleet.spawn(f"host-{n}", database={"dsn": proxy.dsn()}) for n, proxy in enumerate(proxies)]
        for survivor in survivors:
            await survivor.ready()
        dying.kill()
        stage.operator.release()
        async with holder.transaction():
            await holder.execute("select from predictu_dispatch.bet for update")
            await stage.expire_leases("dying")
            await until("both have reported what they reap", lambda: all(proxy.runs(SETTLE) for proxy in proxies))
        # Whoever comes second reports again within 50 ms, long before the wins below are delivered.
        for n in range(count):
            await stage.ledger.end("BET_WIN", f"b-{n}")
        await stage.all_final()
        for survivor in survivors:
            survivor.ask_to_stop()
            assert await survivor.exited() == 0

    assert await stage.bets() == {"closed": count}
    assert stage.operator.faults == await stage.audit_faults() == []
    assert stage.operator.balance["p1"] == 0
    for placement in placements:
        interrupted, delivered = await stage.audit(placement)
        assert interrupted == (1, "retry", "unanswered", "interrupted", "dying")
        assert delivered[:4] == (2, "delivered", "answered", None)
    # Each attempt is logged by one daemon only, those that were reaped as well: whoever came second left no trace.
    lines = [line for survivor in survivors for line in survivor.lines() if "attempt" in line]
    rows = await stage.ledger.owner.fetch("select request_id::text, attempt from predictu_dispatch.attempt")
    assert sorted((line["request_id"], line["attempt"]) for line in lines) == sorted(tuple(row) for row in rows)
