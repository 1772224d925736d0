"""Daemons and a retired operator: its file is refused, and the other operators are served."""

import os
import signal

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.daemons import until
from tests.support.environment import OTHER, Environment, another_operator
from tests.support.harness import OPERATOR, enqueue
from tests.support.interventions import refusal, retire

BALANCE = {"player_id": "p1", "currency": "EUR"}


async def test_a_file_of_a_retired_operator_is_reported_and_the_others_are_served(environment: Environment) -> None:
    """At a start and at a reload; the file was left behind, or somebody brings it back."""
    fleet, harness = environment.fleet, environment.harness
    async with another_operator(environment) as other:
        daemon = await fleet.start("host-1")
        assert (await refusal(retire(harness.person, OTHER)))[1].startswith(
            f"operator {OTHER} is not retired: its file is used by daemon host-1 on host "
        )
        file = fleet.folder / "operators" / f"{OTHER}.toml"
        content = file.read_text(encoding="utf-8")
        file.unlink()
        os.kill(daemon.process.pid, signal.SIGHUP)
        await daemon.until_logged("config.reloaded")

        async def is_no_longer_served() -> bool:
            shares = "select count(*) from predictu_dispatch.share where operator_id = $1"
            return bool(await harness.owner.fetchval(shares, OTHER) == 0)

        await until("the daemon has returned its share", is_no_longer_served)
        await environment.until_all_final()
        await retire(harness.person, OTHER)

        file.write_text(content, encoding="utf-8")
        os.kill(daemon.process.pid, signal.SIGHUP)
        await daemon.until_logged("config.reloaded", times=2)
        [refused] = daemon.lines("config.refused")
        assert refused["fault"].startswith(f'{file}: operator_id = "{OTHER}": retired at 2')
        assert "by alice@desk-1; a retired operator is never used again: delete this file" in refused["fault"]
        assert await daemon.metric("config_last_reload_successful") == 0

        second = await fleet.start("host-2")
        assert len(second.lines("config.refused")) == 1
        assert await second.metric("config_last_reload_successful") == 0
        assert await second.metric("config_reload_failures_total") == 1
        [started] = second.lines("daemon.started")
        assert started["operators"] == 1
        assert await is_no_longer_served()
        balance = await enqueue(harness.producer, "BALANCE", BALANCE)
        await environment.until_all_final()
        assert (await harness.callback(balance))["state"] == "delivered"
        for process in (daemon, second):
            status = await process.get(f"/keys/{OTHER}.json")
            assert status[0] == 404, "its keys are no longer published"
            assert not [labels for labels in (await process.metrics())["circuit_open"] if OTHER in labels]
        assert {row["operator_id"] for row in await harness.person.fetch(query("operators"))} >= {OPERATOR}
        assert other.faults == []
