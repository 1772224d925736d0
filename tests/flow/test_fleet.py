"""A fleet of real daemons, as the operator sees it: never more requests at once than its limit, whoever comes or goes.

The operator counts by itself, in its own process, what it has under way. A request whose sender is gone is over.
"""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.support.bulk import place_many, slots, until_heartbeats, until_slots, win_many
from tests.support.daemons import Daemon, until
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


async def all_ready(environment: Environment, *instances: str) -> list[Daemon]:
    """So many daemons are started at once, and ready."""
    daemons = [environment.fleet.spawn(instance) for instance in instances]
    for daemon in daemons:
        await daemon.ready()
    return daemons


async def is_busy(operator: Operator, count: int, *, lane: str = "interactive", within_s: float = 15.0) -> None:
    """So many requests of the lane are under way at once."""
    await until(f"{count} are under way at once", lambda: operator.busy[lane] == count, within_s=within_s)


async def uses_all_of_its_limit(environment: Environment, lane: str = "interactive") -> None:
    """The daemons fill every slot: seen where the operator holds its answers back for a moment."""
    environment.operator.hold()
    await is_busy(environment.operator, LIMIT, lane=lane)
    environment.operator.release()


async def finish(environment: Environment, count: int) -> None:
    """The operator answers at once again; everything is delivered, and the audit and the operator's books are right."""
    environment.operator.answers_in_s = 0.0
    environment.operator.release()
    await environment.until_all_final()
    assert await environment.states() == {"delivered": count}
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_what_a_killed_daemon_had_is_used_by_the_others_within_seconds_and_nothing_before_that(
    environment: Environment,
) -> None:
    environment.operator.hold()
    _, _, c = await all_ready(environment, A, B, C)
    await until_slots(environment, host_a=4, host_b=4, host_c=4)
    await place_many(environment, 60)
    await is_busy(environment.operator, LIMIT)
    killed_at_s = time.monotonic()
    c.kill()
    await is_busy(environment.operator, LIMIT - 4, within_s=2.0)
    await until_slots(environment, host_a=6, host_b=6)
    await is_busy(environment.operator, LIMIT)
    assert time.monotonic() - killed_at_s < 8, "three seconds of silence, one until the next announcement, and ours"
    assert environment.operator.busiest["interactive"] == LIMIT
    # What the dead one had under way is sent again by the others; what hangs there still counts for nobody.
    await environment.expire_leases(C)
    await finish(environment, 60)
    assert environment.operator.busiest["interactive"] == LIMIT


async def under_way(environment: Environment, instance: str) -> list[UUID]:
    """What this daemon has under way, as the database knows."""
    rows = await environment.harness.owner.fetch(
        "select request_id from predictu_dispatch.callback where state = 'in_flight' and leased_by = $1", instance
    )
    return [row["request_id"] for row in rows]


async def test_who_joins_gets_slots_only_as_what_hangs_there_ends(environment: Environment) -> None:
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


async def test_daemons_that_join_and_stop_keep_the_limit_strictly_and_use_all_of_it(environment: Environment) -> None:
    lane = "settlement"
    # Slow enough for work to be left until the end.
    environment.operator.answers_in_s = 0.25
    await win_many(environment, 1_200)
    a, _ = await all_ready(environment, A, B)
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


async def test_a_claim_that_is_under_way_while_its_daemon_stops_is_not_given_to_another(
    environment: Environment,
) -> None:
    """Its answer is late. What it may bring counts as used, or another would fill the same slots meanwhile."""
    claiming = "predictu_dispatch.claim("
    environment.operator.hold()
    async with proxied(environment.fleet.dsn) as proxy:
        a = await environment.fleet.start(A, database={"dsn": proxy.dsn()}, daemon={"drain_s": 30.0})
        await environment.fleet.start(B)
        await until_slots(environment, host_a=6, host_b=6)
        # Both lanes' next claims are held back on their way home, and one of them has found something.
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


async def test_a_daemon_that_waits_for_one_operators_answer_gives_the_others_back_at_once(
    environment: Environment,
) -> None:
    """Each deploy would halve every operator's limit for as long as one of them hangs."""
    async with another_operator(environment, interactive={"max_in_flight": LIMIT}):
        environment.operator.hold()
        a, _ = await all_ready(environment, A, B)
        await until_slots(environment, operator_id=OTHER, host_a=6, host_b=6)
        await place_many(environment, LIMIT)
        await is_busy(environment.operator, LIMIT)
        a.terminate()
        await until_slots(environment, operator_id=OTHER, host_b=LIMIT)
        assert a.process.poll() is None
        assert await slots(environment) == {A: 6, B: 6}
        await finish(environment, LIMIT)
        assert await a.exited() == 0


async def test_a_daemon_that_stands_still_loses_its_share_and_uses_none_when_it_goes_on(
    environment: Environment,
) -> None:
    environment.operator.hold()
    async with proxied(environment.fleet.dsn) as proxy:
        await all_ready(environment, A, B)
        c = await environment.fleet.start(C, database={"dsn": proxy.dsn()})
        await until_slots(environment, host_a=4, host_b=4, host_c=4)
        await place_many(environment, 200)
        await is_busy(environment.operator, LIMIT)
        c.freeze()
        await until("its share is gone", lambda: lost_its_share(environment, C))
        # Its requests hang where they did, and the others have all of the limit.
        await is_busy(environment.operator, LIMIT + 4)
        assert environment.operator.busiest["interactive"] == LIMIT + 4
        environment.operator.release_only(await under_way(environment, C))
        await is_busy(environment.operator, LIMIT)
        # It goes on with four slots that are free, hears nothing yet, and knows that they are no longer its own.
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


async def test_a_second_daemon_of_the_same_name_does_not_start_and_the_first_goes_on(environment: Environment) -> None:
    first = await environment.fleet.start(A)
    second = environment.fleet.spawn("twin", daemon={"instance": A})
    assert await second.exited(within_s=15) == 1
    said = second.log_text.splitlines()[-1]
    assert said.startswith(f"another daemon called '{A}' is running on host ")
    assert f"process {first.process.pid}" in said
    assert "[daemon] instance in dispatcher.toml" in said
    assert "daemon.started" not in second.log_text
    await place_many(environment, 30)
    await finish(environment, 30)
    assert first.process.poll() is None
    assert await slots(environment) == {A: LIMIT}


async def test_a_daemon_that_is_started_right_after_a_kill_has_its_name_and_its_work_back_within_seconds(
    environment: Environment,
) -> None:
    first = await environment.fleet.start(A)
    first.kill()
    started_s = time.monotonic()
    await environment.fleet.start("next", daemon={"instance": A})
    # Its predecessor's silence is over after three seconds; the rest is a start on a busy machine.
    assert time.monotonic() - started_s < 9
    await place_many(environment, 30)
    await finish(environment, 30)


@pytest.mark.parametrize("lane", ["interactive", "settlement"])
async def test_a_limit_of_one_is_kept_by_three_daemons_and_everything_is_delivered(
    environment: Environment, lane: str
) -> None:
    sections: dict[str, Any] = {lane: {"max_in_flight": 1}}
    environment.fleet.write_operator(environment.operator.url, **sections)
    environment.operator.answers_in_s = 0.002
    a, b, _ = await all_ready(environment, A, B, C)
    await (place_many if lane == "interactive" else win_many)(environment, 150)
    await until("some are through", lambda: len(environment.operator.requests) > 30)
    # The one slot moves to another, and one of those who had none goes.
    a.kill()
    b.terminate()
    await environment.expire_leases(A)
    await finish(environment, 150)
    assert environment.operator.busiest[lane] == 1
