"""Several daemons on one database: one lease per callback, and expired leases are reaped."""

from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import connected
from tests.support.postgres import Database
from tests.support.postgres_proxy import proxied

SETTLE = "predictu_dispatch.settle("


async def test_two_daemons_reap_a_crashed_daemons_leases_once(environment: Environment, database: Database) -> None:
    """The bets are locked at first, so the leases are reaped more than once."""
    count = 30
    environment.operator.hold()
    killed = await environment.fleet.start("killed")
    placements = [await environment.harness.place(f"b-{n}") for n in range(count)]
    await environment.until_in_flight(count)
    async with (
        proxied(environment.fleet.dsn) as one,
        proxied(environment.fleet.dsn) as other,
        connected(database.owner, 1) as [holder],
    ):
        proxies = (one, other)
        survivors = [
            environment.fleet.spawn(f"host-{n}", database={"dsn": proxy.dsn()}) for n, proxy in enumerate(proxies)
        ]
        for survivor in survivors:
            await survivor.ready()
        killed.kill()
        environment.operator.release()
        async with holder.transaction():
            await holder.execute("select from predictu_dispatch.bet for update")
            await environment.expire_leases("killed")
            await until(
                "reaped attempts were reported twice while the bets are locked",
                lambda: sum(proxy.runs(SETTLE) for proxy in proxies) >= 2,
            )
        for n in range(count):
            await environment.harness.end("BET_WIN", f"b-{n}")
        await environment.until_all_final()
        for survivor in survivors:
            survivor.terminate()
            assert await survivor.exited() == 0

    assert await environment.bets() == {"closed": count}
    assert environment.operator.faults == await environment.audit_faults() == []
    assert environment.operator.balance["p1"] == 0
    for placement in placements:
        interrupted, delivered = await environment.audit(placement)
        assert interrupted == (1, "retry", "unanswered", "interrupted", "killed")
        assert delivered[:4] == (2, "delivered", "answered", None)
    # Each attempt, also a reaped one, is logged by exactly one daemon.
    lines = [line for survivor in survivors for line in survivor.lines() if "attempt" in line]
    rows = await environment.harness.owner.fetch("select request_id::text, attempt from predictu_dispatch.attempt")
    assert sorted((line["request_id"], line["attempt"]) for line in lines) == sorted(tuple(row) for row in rows)
