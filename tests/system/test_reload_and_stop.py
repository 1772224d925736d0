"""A reload and a stop at the same time, and a reload while the database cannot be reached."""

import json
import signal

from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment
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
