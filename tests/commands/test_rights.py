"""What each verb's login needs: exit code 1 names it, whichever right is missing."""

import asyncio
import re
from pathlib import Path

import pytest

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.command_line import CommandLine, command_line_for
from tests.support.differences import finished_run, item
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, Harness, connected
from tests.support.histories import KEEP_MONTHS
from tests.support.interventions import terminal_in_review
from tests.support.postgres import Database

LOGINS = ("producer", "dispatcher", "operations", "support", "auditor", "retention", "reconciler", "stranger")
READERS = {"dispatcher", "operations", "support"}
ALL_READERS = READERS | {"auditor", "reconciler"}
_RECONCILES = "predictu_reconciler, predictu_support, predictu_operations or predictu_auditor"
VERBS = {
    "status": (READERS, "predictu_support or predictu_operations"),
    "why {win}": (READERS, "predictu_support or predictu_operations"),
    "show {win}": (ALL_READERS, "predictu_support, predictu_operations or predictu_auditor"),
    "show {unknown}": (ALL_READERS, "predictu_support, predictu_operations or predictu_auditor"),
    "show --bet {operator} b-unknown": (ALL_READERS, "predictu_auditor"),
    "dispute --bet {operator} b-unknown": ({"auditor"}, "predictu_auditor"),
    "find --player p1": (ALL_READERS, "predictu_support, predictu_operations or predictu_auditor"),
    "find --amount 5.00": (ALL_READERS, "predictu_auditor"),
    "find --request {unknown}": (ALL_READERS, "predictu_auditor"),
    "retry {win}": ({"operations"}, "predictu_operations"),
    "retry --operator {operator} --yes": ({"operations"}, "predictu_operations"),
    "cancel {ready} --reason wrong": ({"operations"}, "predictu_operations"),
    "abandon {win} --reason gone": ({"operations"}, "predictu_operations"),
    "resolve {win} --reason paid": ({"operations"}, "predictu_operations"),
    "pause {operator} --reason maintenance": ({"operations"}, "predictu_operations"),
    "resume {operator}": ({"operations"}, "predictu_operations"),
    "interventions": (ALL_READERS, "predictu_support, predictu_operations or predictu_auditor"),
    "operator retire {operator} --reason gone": ({"operations"}, "predictu_operations"),
    "ping {operator}": ({"operations"}, "predictu_operations"),
    "reconcile {operator} --day 2026-01-01 {ledger}": ({"reconciler"}, "predictu_reconciler"),
    "reconcile list {operator}": (ALL_READERS, _RECONCILES),
    "reconcile list --runs": (ALL_READERS, _RECONCILES),
    "reconcile show {difference}": (ALL_READERS - {"dispatcher"}, _RECONCILES),
    "reconcile explain {difference} --reason typo": ({"reconciler"}, "predictu_reconciler"),
    "reconcile accept {difference} --reason paid": ({"reconciler"}, "predictu_reconciler"),
    "statement {operator} --currency EUR --from 2024-01-01 --until 2024-01-01": (
        {"operations", "support", "auditor", "reconciler"},
        "predictu_reconciler, predictu_support, predictu_operations or predictu_auditor",
    ),
    "retain": ({"retention"}, "predictu_retention"),
    "migrate": (set(), "own the schema"),
    "currencies list": (ALL_READERS, "predictu_support, predictu_operations or predictu_auditor"),
    "currencies add USDT 6": (set(), "own the schema"),
}
"""The logins that have each verb's right, and what the others are told."""

OPERATOR_FILE = f"""
operator_id = "{OPERATOR}"
callback_url = "https://wallet.example.com/predictu"
[signing]
key_file = "none.pem"
"""

READS = ("find", "show", "status", "why", "interventions", "retain", "currencies", "reconcile", "statement")


@pytest.mark.parametrize("verb", VERBS)
async def test_a_login_without_the_right_is_exit_code_1_and_learns_which_role_has_it(
    harness: Harness, database: Database, tmp_path: Path, verb: str
) -> None:
    allowed, needed = VERBS[verb]
    win = await terminal_in_review(harness)
    # No daemon runs, so a PING ends at its deadline.
    await harness.owner.execute("update predictu_dispatch.operator set interactive_deadline_s = 0.01")
    ready = await harness.place("ready")
    (ledger := tmp_path / "ledger.csv").write_text("booked_at,amount,currency,request_id\n")
    unknown = "00000000-0000-0000-0000-000000000009"
    difference = item("request:1")
    await finished_run(harness.owner, difference)
    named = {"win": win, "ready": ready, "unknown": unknown, "difference": difference["item_id"]}
    words = verb.format(operator=OPERATOR, ledger=ledger, **named).split()
    if words[0] == "resume":
        await harness.person.execute("select predictu_dispatch.pause_operator($1, 'x', 'y')", OPERATOR)
    is_of_group = words[0] in ("operator", "currencies") or words[1:2] in (["list"], ["explain"], ["accept"])
    name = " ".join(words[:2]) if is_of_group or words[:2] == ["reconcile", "show"] else words[0]
    before = await harness.everything()
    for login in sorted(set(LOGINS) - allowed) + sorted(allowed):
        cli = command_line_for(tmp_path, getattr(database, login))
        cli.write_operator(OPERATOR, OPERATOR_FILE)
        with cli.config.open("a", encoding="utf-8") as file:
            file.write(f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n")
        if login in allowed and words[0] == "ping":
            continue  # tests/commands/test_ping_command.py
        code, _, stderr = await cli.run(*words)
        if login not in allowed:
            assert code == 1, (login, stderr)
            assert re.fullmatch(
                r"the database refused: permission denied for .*\n"
                rf"    The login of `predictu-dispatch {name}` needs .*{needed}.*\n",
                stderr.replace("must be owner of", "permission denied for"),
            ), (login, stderr)
            assert await harness.everything() == before, login
        elif login == "operations" or words[0] in READS:
            assert "the database refused" not in stderr, (login, stderr)
            assert code == int("unknown" in verb or words[0] in ("abandon", "operator") or "accept" in words), (
                login,
                stderr,
            )


@pytest.mark.parametrize("login", [login for login in LOGINS if login != "dispatcher"])
async def test_a_daemon_with_another_login_ends_with_code_1_and_names_the_role(
    environment: Environment, database: Database, login: str
) -> None:
    daemon = environment.fleet.spawn("host-1", database={"dsn": getattr(database, login)})
    assert await daemon.exited() == 1
    assert "The login of `predictu-dispatch run` needs the role predictu_dispatcher" in daemon.log_text
    assert "Traceback" not in daemon.log_text


async def test_an_owner_who_may_not_create_roles_learns_what_to_run_first(
    embedded: EmbeddedPostgres, tmp_path: Path
) -> None:
    """As on a hosted Postgres, in an upgrade: the roles of the first release exist."""
    async with connected(embedded.dsn(), 1) as [superuser]:
        await superuser.execute("create role hosted login nocreaterole")
        for role in ("producer", "dispatcher", "support", "retention", "reconciler"):
            await superuser.execute(f"create role predictu_{role} nologin")
        await superuser.execute("create database hosted owner hosted encoding 'UTF8' template template0")
        cli = command_line_for(tmp_path, embedded.dsn("hosted", "hosted"))
        code, _, stderr = await cli.run("migrate")
        assert code == 1
        message, hint = stderr.splitlines()
        assert message == "the database refused: role predictu_operations is missing, and hosted may not create roles"
        await superuser.execute(hint[hint.index("create role") :])
        assert (await cli.run("migrate"))[0] == 0


async def test_two_databases_of_one_server_create_the_roles_at_once(embedded: EmbeddedPostgres, tmp_path: Path) -> None:
    async with connected(embedded.dsn(), 1) as [superuser]:
        desks: list[CommandLine] = []
        for name in ("one", "two", "three"):
            await superuser.execute(f"create database {name} encoding 'UTF8' template template0")
            (tmp_path / name).mkdir()
            desks.append(command_line_for(tmp_path / name, embedded.dsn(name)))
        for code, _, stderr in await asyncio.gather(*(desk.run("migrate") for desk in desks)):
            assert (code, stderr) == (0, "")
