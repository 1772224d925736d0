"""A reload and a stop at the same time, and a reload while the database cannot be reached."""

import json
import signal

from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, another_operator
from tests.support.harness import OPERATOR


async def kids(daemon: Daemon) -> list[str]:
    return [key["kid"] for key in json.loads((await daemon.get(f"/keys/{OPERATOR}.json"))[1])["keys"]]


def hang_up(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGHUP)


async def test_a_reload_while_stopping_is_ignored(environment: Environment) -> None:
    environment.operator.hold()
    daemon = await environment.fleet.start("host-1")
    placement = await environment.harness.place()
    await environment.until_in_flight(1)
    daemon.terminate()
    await daemon.until_logged("drain.started")
    environment.fleet.write_operator(environment.operator.url, enabled=False)
    hang_up(daemon)
    await daemon.until_logged("config.reload_ignored")
    environment.operator.release()
    assert await daemon.exited() == 0
    assert await environment.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
    assert daemon.lines("config.reloaded") == []
    assert "Traceback" not in daemon.log_text


async def test_a_stop_during_a_reload_discards_it(environment: Environment) -> None:
    """It waits for a lock in the database."""
    environment.operator.hold()
    daemon = await environment.fleet.start("host-1")
    placement = await environment.harness.place()
    await environment.until_in_flight(1)
    environment.fleet.write_operator(environment.operator.url, interactive={"max_in_flight": 7})
    owner = environment.harness.owner
    await owner.execute(
        "create function public.wait() returns trigger language plpgsql as"
        " $$ begin perform pg_advisory_xact_lock(4711); return new; end $$;"
        "create trigger waits before insert or update of config_fingerprint on predictu_dispatch.operator"
        " for each row execute function public.wait()"
    )
    await owner.execute("select pg_advisory_lock(4711)")
    hang_up(daemon)
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%sync_operators%'"

    async def reload_waits() -> bool:
        return bool(await owner.fetchval(waits))

    await until("the reload waits", reload_waits)
    daemon.terminate()
    await daemon.until_logged("drain.started")
    await owner.execute("select pg_advisory_unlock(4711)")
    await daemon.until_logged("config.reload_ignored")
    environment.operator.release()
    assert await daemon.exited() == 0
    assert await environment.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
    assert daemon.lines("config.reloaded") == []
    assert "Traceback" not in daemon.log_text


async def test_after_a_failed_reload_the_old_settings_are_in_force_until_it_succeeds(environment: Environment) -> None:
    """The database refuses what the reload writes; deliveries go on, with the old key."""
    daemon = await environment.fleet.start("host-1")
    before = await kids(daemon)
    owner = environment.harness.owner
    await owner.execute(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'refused'; end $$;"
        "create trigger refused before insert or update of config_fingerprint on predictu_dispatch.operator"
        " for each row execute function public.refuse()"
    )
    create_key_file(environment.fleet.folder / "new.pem", "EdDSA")
    environment.fleet.write_operator(environment.operator.url, signing={"key_file": "../new.pem"})
    hang_up(daemon)
    await daemon.until_logged("chore.failed")
    assert await kids(daemon) == before
    placement = await environment.harness.place()
    await environment.until_all_final()
    assert await environment.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
    # Its token was verified with the old key.
    assert environment.operator.faults == []
    await owner.execute("drop trigger refused on predictu_dispatch.operator")
    await daemon.until_logged("config.reloaded")
    assert await kids(daemon) != before


async def test_an_operator_without_connections_keeps_its_settings_and_the_others_are_taken(
    environment: Environment,
) -> None:
    fleet = environment.fleet
    async with another_operator(environment):
        daemon = fleet.spawn("host-1", module="tests.support.failing_couriers")
        await daemon.ready()
        before = await kids(daemon)
        for name in ("new", "third", "good"):
            create_key_file(fleet.folder / f"{name}.pem", "EdDSA")
        signing = {"key_file": "../new.pem"}
        # Its new connections cannot be made, nor those of a new operator; the third one is good.
        fleet.write_operator("http://127.0.0.1:9/cannot-be-made", signing=signing)
        fleet.write_operator(
            "http://127.0.0.1:9/cannot-be-made", operator_id="op_new", signing={"key_file": "../third.pem"}
        )
        fleet.write_operator("http://127.0.0.1:9/", operator_id="op_good", signing={"key_file": "../good.pem"})
        hang_up(daemon)
        await daemon.until_logged("config.reloaded")
        [reloaded] = daemon.lines("config.reloaded")
        assert (reloaded["changed"], reloaded["kept"], reloaded["operators"]) == (1, [OPERATOR], 3)
        assert any(f"{OPERATOR}.toml: no connections" in line["fault"] for line in daemon.lines("config.refused"))
        assert daemon.lines("chore.failed") == []
        assert await daemon.metric("config_last_reload_successful") == 0
        assert await kids(daemon) == before
        placement = await environment.harness.place()
        await environment.until_all_final()
        assert await environment.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
        # The corrected file is taken.
        fleet.write_operator(environment.operator.url, signing=signing)
        (fleet.folder / "operators" / "op_new.toml").unlink()
        hang_up(daemon)
        await daemon.until_logged("config.reloaded", times=2)
        assert await kids(daemon) != before
        assert await daemon.metric("config_last_reload_successful") == 1
