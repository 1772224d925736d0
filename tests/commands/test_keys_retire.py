"""`keys retire` asks the database whether anything needs the previous key."""

import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, Harness, claim, delivered, exhausted
from tests.support.heartbeats import heartbeat, pass_time
from tests.support.postgres import Database

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
SESSION = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
async def cli(tmp_path: Path, database: Database) -> CommandLine:
    """An operator whose second key is active, and whose first one is the previous key."""
    cli = command_line_for(tmp_path, database.operations)
    cli.write_operator(
        OPERATOR,
        f'operator_id = "{OPERATOR}"\ncallback_url = "https://h/"\n'
        '[signing]\nkey_file = "op.pem"\ntoken_ttl_s = 3600\n',
    )
    create_key_file(tmp_path / "operators" / "op.pem", "EdDSA")
    for verb in ("stage", "activate"):
        assert (await cli.run("keys", verb, OPERATOR))[0] == 0
    return cli


async def key_ids(cli: CommandLine) -> dict[str, str]:
    _, output = await cli.run_json("keys", "public", OPERATOR)
    return {key["role"]: key["key_id"] for key in output["keys"]}


async def reload(harness: Harness, kid: str) -> None:
    """The test plays host-1, which loads this key."""
    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version)"
        " select 'host-1', $1, 'h', 1, '1', 1 where not exists (select from predictu_dispatch.daemon)",
        SESSION,
    )
    assert await harness.daemon.fetchval(
        "select predictu_dispatch.report_signing_keys('host-1', $1, $2, $3)", SESSION, [OPERATOR], [kid]
    )


async def until_expired(harness: Harness) -> None:
    """As if token_ttl_s had passed since the daemon loaded its key."""
    await harness.owner.execute(
        "update predictu_dispatch.daemon set signing_keys ="
        " jsonb_set(signing_keys, array[$1, 'since'], to_jsonb(now() - interval '2 hours'))",
        OPERATOR,
    )


async def refused(cli: CommandLine) -> tuple[str, str]:
    code, output = await cli.run_json("keys", "retire", OPERATOR)
    assert (code, output["ok"]) == (1, False)
    [refusal] = output["refusals"]
    return refusal["obstacle"], refusal["message"]


async def test_each_obstacle_is_named_with_what_to_do(
    harness: Harness, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kids = await key_ids(cli)
    await reload(harness, kids["previous"])
    code, stdout, stderr = await cli.run("keys", "retire", OPERATOR)
    assert (code, stdout) == (1, "")
    assert " ".join(stderr.split()) == (
        f"key {kids['previous']} is not retired:"
        " daemon host-1 still signs with it; reload that daemon, or restart it if keys are systemd credentials, and"
        " run this again 3600 s (token_ttl_s) later"
        f" If the key is compromised: predictu-dispatch keys retire {OPERATOR} --compromised"
    )
    assert max(map(len, stderr.splitlines())) <= 80

    await reload(harness, kids["active"])
    obstacle, message = await refused(cli)
    assert obstacle == "tokens_under_way"
    assert "run this again in 36" in message

    # The times of the files are the system's own; nobody can set them back.
    await until_expired(harness)
    assert (await refused(cli))[0] == "tokens_under_way"
    two_hours_later = SimpleNamespace(time=lambda: time.time() + 7200.0)
    monkeypatch.setattr("predictu_dispatch.commands.keys.rotation.time", two_hours_later)
    obstacle, message = await refused(cli)
    assert (obstacle, message.rpartition(": ")[2]) == ("no_ping", f"predictu-dispatch ping {OPERATOR}")

    for kid, settled, expected in (
        (kids["previous"], delivered, "no_ping"),
        (kids["active"], exhausted, "ping_failed"),
        (kids["active"], delivered, None),
    ):
        await harness.person.execute("select predictu_dispatch.ping_operator($1)", OPERATOR)
        [lease] = await claim(harness.daemon)
        await harness.settle(settled(lease, key_id=kid))
        if expected is not None:
            assert (await refused(cli))[0] == expected
    assert (await cli.run("keys", "retire", OPERATOR))[0] == 0
    assert await key_ids(cli) == {"active": kids["active"]}


async def test_a_reload_with_the_same_key_does_not_begin_the_wait_again(harness: Harness, cli: CommandLine) -> None:
    kid = (await key_ids(cli))["active"]
    since = "select signing_keys #>> array[$1, 'since'] from predictu_dispatch.daemon"
    await reload(harness, kid)
    first = await harness.owner.fetchval(since, OPERATOR)
    await reload(harness, kid)
    assert await harness.owner.fetchval(since, OPERATOR) == first
    await reload(harness, "another")
    assert await harness.owner.fetchval(since, OPERATOR) > first


async def test_a_daemon_that_started_again_reports_its_key_before_any_is_retired(
    harness: Harness, cli: CommandLine
) -> None:
    """After a crash it may have other files, or be of an earlier release, which reports nothing."""
    await reload(harness, (await key_ids(cli))["active"])
    await pass_time(harness.owner, 12 * 3600.0)
    await heartbeat(harness.daemon, "host-1", uuid.uuid4(), {OPERATOR: (1, 1, 0.0)}, {})
    assert (await refused(cli))[0] == "daemon_does_not_tell"


@pytest.mark.parametrize("is_compromised", [False, True])
async def test_the_database_records_when_a_key_was_retired(
    harness: Harness, cli: CommandLine, monkeypatch: pytest.MonkeyPatch, *, is_compromised: bool
) -> None:
    kids = await key_ids(cli)
    await harness.daemon.execute(
        "select predictu_dispatch.register_signing_keys($1, $2, $3, $4)",
        *([OPERATOR] * 2, [*kids.values()], ["EdDSA"] * 2, ["{}"] * 2),
    )
    if not is_compromised:
        await reload(harness, kids["active"])
        await until_expired(harness)
        two_hours_later = SimpleNamespace(time=lambda: time.time() + 7200.0)
        monkeypatch.setattr("predictu_dispatch.commands.keys.rotation.time", two_hours_later)
        await harness.person.execute("select predictu_dispatch.ping_operator($1)", OPERATOR)
        [lease] = await claim(harness.daemon)
        await harness.settle(delivered(lease, key_id=kids["active"]))
    code, _, stderr = await cli.run("keys", "retire", OPERATOR, *(["--compromised"] if is_compromised else []))
    assert (code, stderr) == (0, "")
    rows = await harness.owner.fetch(
        "select kid, retired_at is not null as is_retired from predictu_dispatch.signing_key"
    )
    assert {row["kid"]: row["is_retired"] for row in rows} == {kids["active"]: False, kids["previous"]: True}


async def test_without_the_database_a_key_is_retired_only_if_it_is_compromised(
    cli: CommandLine, tmp_path: Path
) -> None:
    unreachable = command_line_for(tmp_path, "postgresql://nobody@127.0.0.1:1/none")
    before = await key_ids(cli)
    code, stdout, stderr = await unreachable.run("keys", "retire", OPERATOR)
    assert (code, stdout) == (3, "")
    assert "the database can't be reached" in stderr
    assert "not retired: only the database knows which keys the daemons sign with" in stderr
    assert f"predictu-dispatch keys retire {OPERATOR} --compromised" in stderr
    assert await key_ids(cli) == before
    code, stdout, stderr = await unreachable.run("keys", "retire", OPERATOR, "--compromised")
    assert code == 0
    assert f"select predictu_dispatch.retire_signing_key('{OPERATOR}', '{before['previous']}')" in stderr
    assert "The operator must remove the key itself, at once" in " ".join(stdout.split())
    assert await key_ids(cli) == {"active": before["active"]}


async def test_a_login_without_rights_learns_which_role_it_needs(
    cli: CommandLine, database: Database, tmp_path: Path
) -> None:
    before = await key_ids(cli)
    code, _, stderr = await command_line_for(tmp_path, database.producer).run("keys", "retire", OPERATOR)
    assert code == 1
    assert "The login of `predictu-dispatch keys retire` needs the role predictu_operations" in stderr
    assert await key_ids(cli) == before
