"""A fleet of real daemons never exceeds an operator's slots, as the operator counts them.

The operator counts concurrent requests in its own process. A request whose sender has stopped has
ended.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from predictu_dispatch.core.fleet import SHARE_VALID_S
from tests.support.bulk import place_many, slots, until_heartbeats, until_slots, win_many
from tests.support.command_line import command_line_for
from tests.support.daemons import until
from tests.support.environment import OTHER, Environment, another_operator, open_environment
from tests.support.operators import Operator
from tests.support.postgres import Database
from tests.support.postgres_proxy import Trick, proxied

LIMIT = 12
A, B, C = "host-a", "host-b", "host-c"


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    async with open_environment(tmp_path, database) as environment:
        slots_of_a_lane = {"max_in_flight": LIMIT}
        environment.fleet.write_operator(
            environment.operator.url, interactive=slots_of_a_lane, settlement=slots_of_a_lane
        )
        yield environment


async def is_busy(operator: Operator, count: int, *, lane: str = "interactive", within_s: float = 15.0) -> None:
    """Wait until `count` requests of the lane are in flight."""
    await until(f"{count} are in flight", lambda: operator.busy[lane] == count, within_s=within_s)


async def uses_all_of_its_limit(environment: Environment, lane: str = "interactive") -> None:
    """Check that the daemons use every slot while the operator delays its answers."""
    environment.operator.hold()
    await is_busy(environment.operator, LIMIT, lane=lane)
    environment.operator.release()


async def finish(environment: Environment, count: int) -> None:
    """Let the operator answer at once; check that everything is delivered and the ledger agrees."""
    environment.operator.answers_in_s = 0.0
    environment.operator.release()
    await environment.until_all_final()
    assert await environment.states() == {"delivered": count}
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_a_killed_daemons_slots_are_used_by_the_others_after_the_heartbeat_timeout(
    environment: Environment,
) -> None:
    environment.operator.hold()
    _, _, c = await environment.fleet.start_all(A, B, C)
    await until_slots(environment, host_a=4, host_b=4, host_c=4)
    await place_many(environment, 60)
    await is_busy(environment.operator, LIMIT)
    c.kill()
    await is_busy(environment.operator, LIMIT - 4, within_s=2.0)
    await until_slots(environment, host_a=6, host_b=6)
    await is_busy(environment.operator, LIMIT)
    assert environment.operator.busiest["interactive"] == LIMIT
    # The others retry its attempts; requests that still hang there do not count.
    await environment.expire_leases(C)
    await finish(environment, 60)
    assert environment.operator.busiest["interactive"] == LIMIT


async def under_way(environment: Environment, instance: str) -> list[UUID]:
    """This daemon's callbacks in flight."""
    rows = await environment.harness.owner.fetch(
        "select request_id from predictu_dispatch.callback where state = 'in_flight' and leased_by = $1", instance
    )
    return [row["request_id"] for row in rows]


async def test_a_new_daemon_gets_slots_only_as_attempts_end(environment: Environment) -> None:
    environment.operator.hold()
    await environment.fleet.start(A)
    await place_many(environment, 60)
    await is_busy(environment.operator, LIMIT)
    await environment.fleet.start(B)
    await until_heartbeats(environment, A, B)
    assert await slots(environment) == {A: LIMIT, B: 0}
    for ended in range(1, 5):
        environment.operator.release_first()
        await until_slots(environment, host_a=LIMIT - ended, host_b=ended)
        await is_busy(environment.operator, LIMIT)
    environment.operator.answers_in_s = 0.02
    environment.operator.release()
    await until_slots(environment, host_a=6, host_b=6)
    await finish(environment, 60)
    assert environment.operator.busiest["interactive"] == LIMIT


async def test_the_limit_is_kept_and_used_while_daemons_start_and_stop(environment: Environment) -> None:
    lane = "settlement"
    # Slow enough that work remains until the end.
    environment.operator.answers_in_s = 0.25
    await win_many(environment, 1_200)
    a, _ = await environment.fleet.start_all(A, B)
    await until_slots(environment, lane=lane, host_a=6, host_b=6)
    await uses_all_of_its_limit(environment, lane)
    await environment.fleet.start(C)
    await until_slots(environment, lane=lane, host_a=4, host_b=4, host_c=4)
    await uses_all_of_its_limit(environment, lane)
    a.terminate()
    assert await a.exited() == 0
    await until_slots(environment, lane=lane, within_s=3.0, host_b=6, host_c=6)
    await uses_all_of_its_limit(environment, lane)
    await finish(environment, 1_200)
    assert environment.operator.busiest[lane] == LIMIT


async def test_slots_of_a_claim_in_progress_are_not_released_when_the_daemon_stops(environment: Environment) -> None:
    """The claim's answer is late, so its slots count as used until it arrives."""
    claiming = "predictu_dispatch.claim("
    environment.operator.hold()
    async with proxied(environment.fleet.dsn) as proxy:
        a = await environment.fleet.start(A, database={"dsn": proxy.dsn()}, daemon={"drain_s": 30.0})
        await environment.fleet.start(B)
        await until_slots(environment, host_a=6, host_b=6)
        # The answers of both lanes' claims are delayed, and one of them has leased a callback.
        a.freeze()
        proxy.on_next(claiming, Trick.KEEP_ANSWER, times=2)
        await place_many(environment, 40)
        a.thaw()
        await proxy.caught.wait()
        await is_busy(environment.operator, 6)

        async def both_have_theirs() -> bool:
            return len(await under_way(environment, A)) == len(await under_way(environment, B)) == 6

        await until("both have claimed their share", both_have_theirs)
        a.terminate()
        await a.until_logged("drain.started")
        await until_heartbeats(environment, A, B)
        proxy.release_answers()
        await is_busy(environment.operator, LIMIT)
        await until_heartbeats(environment, A, B)
        assert await slots(environment) == {A: 6, B: 6}
        await finish(environment, 40)
        assert await a.exited() == 0
        assert environment.operator.busiest["interactive"] == LIMIT


async def test_a_stopping_daemon_releases_the_slots_of_idle_operators_at_once(environment: Environment) -> None:
    """Otherwise a slow operator would reduce all operators' limits during each restart."""
    async with another_operator(environment, interactive={"max_in_flight": LIMIT}):
        environment.operator.hold()
        a, _ = await environment.fleet.start_all(A, B)
        await until_slots(environment, operator_id=OTHER, host_a=6, host_b=6)
        await place_many(environment, LIMIT)
        await is_busy(environment.operator, LIMIT)
        a.terminate()
        await until_slots(environment, operator_id=OTHER, host_b=LIMIT)
        assert a.process.poll() is None
        assert await slots(environment) == {A: 6, B: 6}
        await finish(environment, LIMIT)
        assert await a.exited() == 0


async def test_a_suspended_daemon_loses_its_share_and_does_not_use_it_when_resumed(environment: Environment) -> None:
    environment.operator.hold()
    async with proxied(environment.fleet.dsn) as proxy:
        await environment.fleet.start_all(A, B)
        c = await environment.fleet.start(C, database={"dsn": proxy.dsn()})
        await until_slots(environment, host_a=4, host_b=4, host_c=4)
        await place_many(environment, 200)
        await is_busy(environment.operator, LIMIT)
        c.freeze()
        await until("its share is gone", lambda: lost_its_share(environment, C))
        # Its requests still hang, and the others have the whole limit.
        await is_busy(environment.operator, LIMIT + 4)
        assert environment.operator.busiest["interactive"] == LIMIT + 4
        environment.operator.release_only(await under_way(environment, C))
        await is_busy(environment.operator, LIMIT)
        # It resumes with four free slots and no heartbeat, and must not use them.
        proxy.on_next("predictu_dispatch.heartbeat(", Trick.KEEP_ANSWER)
        c.thaw()
        await proxy.caught.wait()
        await until("it has settled what it had", lambda: has_settled(environment, C))
        await until_heartbeats(environment, A, B)
        assert await under_way(environment, C) == []
        assert environment.operator.busy["interactive"] == LIMIT
        proxy.release_answers()
        await until_heartbeats(environment, A, B, C)
        assert environment.operator.busy["interactive"] == LIMIT
        environment.operator.answers_in_s = 0.02
        environment.operator.release()
        await until_slots(environment, host_a=4, host_b=4, host_c=4)
        environment.operator.busiest.clear()
        await uses_all_of_its_limit(environment)
        await finish(environment, 200)
        assert environment.operator.busiest["interactive"] == LIMIT


async def has_settled(environment: Environment, instance: str) -> bool:
    return not await under_way(environment, instance)


async def lost_its_share(environment: Environment, instance: str) -> bool:
    return instance not in await slots(environment)


async def test_a_second_daemon_with_the_same_name_does_not_start(environment: Environment) -> None:
    first = await environment.fleet.start(A)
    second = environment.fleet.spawn("twin", daemon={"instance": A})
    assert await second.exited(within_s=15) == 1
    message = second.log_text.splitlines()[-1]
    assert message.startswith(f"another daemon called '{A}' is running on host ")
    assert f"process {first.process.pid}" in message
    assert "[daemon] instance in dispatcher.toml" in message
    assert "daemon.started" not in second.log_text
    await place_many(environment, 30)
    await finish(environment, 30)
    assert first.process.poll() is None
    assert await slots(environment) == {A: LIMIT}


async def test_a_daemon_restarted_after_a_kill_continues(environment: Environment) -> None:
    first = await environment.fleet.start(A)
    first.kill()
    await environment.fleet.start("next", daemon={"instance": A})
    await place_many(environment, 30)
    await finish(environment, 30)


@pytest.mark.parametrize("lane", ["interactive", "settlement"])
async def test_three_daemons_keep_a_limit_of_one_and_deliver_everything(environment: Environment, lane: str) -> None:
    sections: dict[str, Any] = {lane: {"max_in_flight": 1}}
    environment.fleet.write_operator(environment.operator.url, **sections)
    environment.operator.answers_in_s = 0.002
    a, b, _ = await environment.fleet.start_all(A, B, C)
    await (place_many if lane == "interactive" else win_many)(environment, 150)
    await until("some are through", lambda: len(environment.operator.requests) > 30)
    # The slot moves to another daemon, and a daemon without slots stops.
    a.kill()
    b.terminate()
    await environment.expire_leases(A)
    await finish(environment, 150)
    assert environment.operator.busiest[lane] == 1


async def test_failing_heartbeats_are_reported_everywhere_and_their_end_too(
    environment: Environment, database: Database, tmp_path: Path
) -> None:
    """Claims and settles still work, so nothing else shows it."""
    a = await environment.fleet.start(A)
    (tmp_path / "support").mkdir()
    support = command_line_for(tmp_path / "support", database.support)
    async with environment.harness.owner.transaction():
        await environment.harness.owner.execute(
            "select from predictu_dispatch.lock where name = 'heartbeat' for update"
        )
        await a.until_logged("heartbeat.failed")

        async def is_unready() -> bool:
            return not await a.is_ready()

        await until("it is not ready", is_unready)
        status, reason = await a.get("/readyz")
        assert status == 503
        assert re.search(r"the last heartbeat was \d+ s ago \(.*lock timeout.*\), so this daemon has no share", reason)
        age_s = await a.metric("heartbeat_age_seconds")
        assert age_s is not None
        assert age_s > SHARE_VALID_S
        await until("its heartbeat is old", lambda: is_silent(environment))
        text = (await support.run("status"))[1]
        assert re.match(rf"no daemon is running.*\n(?:  .*\n)*daemon {A} on .*: last heartbeat [\d.]+ s\s+ago", text)
        assert len(a.lines("heartbeat.failed")) == 1
    await a.until_logged("heartbeat.recovered")
    await a.ready()
    assert a.lines("database.lost") == []
    [line] = a.lines("heartbeat.failed")
    assert "lock timeout" in line["error"]
    assert "last heartbeat" not in (await support.run("status"))[1]


async def is_silent(environment: Environment) -> bool:
    found: bool = await environment.harness.owner.fetchval(
        "select bool_and(seen_at < clock_timestamp() - interval '3 seconds') from predictu_dispatch.daemon"
    )
    return found
