"""The runbook's table "From an alert to the cause", held against real daemons and real outages."""

import json
import re
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import placement_params
from tests.support.outages import outages
from tests.support.postgres import Database
from tests.support.postgres_proxy import proxied

DEPLOY = Path(__file__).parents[2] / "deploy"
RUNBOOK = (DEPLOY / "runbook.md").read_text(encoding="utf-8")
RULES = (DEPLOY / "prometheus" / "predictu-dispatch.rules.yml").read_text(encoding="utf-8")
OF_OPERATORS = {
    "connection refused": "refused",
    "no connection": "black_hole",
    "timeout": "timeout",
    "HTTP 404": "404",
    "an HTML page": "html",
    "a redirect": "redirect",
    "a bad certificate": "bad_certificate",
    "HTTP 401": "401",
    "an undeclared status": "wrong_status",
}
"""The name of each outage in the runbook, and in tests/support/outages.py."""
OF_HOSTS = ("Postgres away", "the database's disk is full", "the log's disk is full")
FULL_DISK = """
    create function public.no_space() returns trigger language plpgsql as
        $$ begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$;
    create trigger no_space before update on predictu_dispatch.callback for each row execute function public.no_space();
"""


def table() -> dict[str, list[str]]:
    """The cells after the first of each row: alert, first command, second command, phrase."""
    chapter = RUNBOOK.partition("## From an alert to the cause")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in chapter.splitlines() if line.startswith("| ")]
    return {name.strip(): [cell.strip(' `"') for cell in cells] for name, *cells in rows[1:]}


CAUSES = table()


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> CommandLine:
    (tmp_path / "desk").mkdir()
    return command_line_for(tmp_path / "desk", database.support)


async def shown(desk: CommandLine, *arguments: str) -> str:
    return " ".join((await desk.run(*arguments))[1].split())


def test_the_table_has_every_outage_with_an_alert_that_exists() -> None:
    assert list(CAUSES) == [*OF_OPERATORS, *OF_HOSTS]
    for alert, *_ in CAUSES.values():
        assert f"alert: {alert}\n" in RULES
        assert f"### {alert}\n" in RUNBOOK


async def test_one_command_names_the_cause_of_each_outage_of_an_operator_and_the_next_command(
    environment: Environment, desk: CommandLine
) -> None:
    folder, harness = environment.fleet.folder, environment.harness
    lane = {"attempt_timeout_s": 0.5, "connect_timeout_s": 0.5}
    async with outages() as urls:
        operators = {name: f"op_{outage}" for name, outage in OF_OPERATORS.items()}
        for name, outage in OF_OPERATORS.items():
            create_key_file(folder / f"{outage}.pem", "EdDSA")
            environment.fleet.write_operator(
                urls[outage],
                operator_id=operators[name],
                signing={"key_file": f"../{outage}.pem"},
                circuit={"failure_threshold": 2, "open_s": 600.0},
                interactive=lane,
                settlement=lane,
            )
        daemon = await environment.fleet.start("host-1")
        wins = {}
        for name, operator_id in operators.items():
            await harness.producer.execute(
                "select predictu_dispatch.adopt_bet($1, 'b1', 'p1', 'EUR', 500, gen_random_uuid())", operator_id
            )
            params = {key: value for key, value in placement_params("b1").items() if key != "bet"}
            wins[name] = await harness.producer.fetchval(
                "select predictu_dispatch.enqueue_callback($1, 'BET_WIN', $2)", operator_id, json.dumps(params)
            )

        async def is_explained() -> bool:
            """All circuits are open but that of undeclared statuses, and nothing is under way."""
            rows = await harness.owner.fetch(
                "select operator_id from predictu_dispatch.operator where circuit = 'open'"
            )
            listed = await harness.owner.fetchval("select count(*) from predictu_dispatch.needs_review")
            sending = await harness.owner.fetchval(
                "select count(*) from predictu_dispatch.callback where state = 'in_flight'"
            )
            return len(rows) == len(OF_OPERATORS) - 1 and bool(listed) and not sending

        await until("every outage has its effect", is_explained)
        await until("the log has each circuit", lambda: len(daemon.lines("circuit.opened")) == len(OF_OPERATORS) - 1)
        text = await shown(desk, "status")
        for name, operator_id in operators.items():
            _, first, then, phrase = CAUSES[name]
            assert first == "predictu-dispatch status"
            helps = then.replace("OPERATOR", operator_id).replace("REQUEST_ID", str(wins[name]))
            title = f"{operator_id} BET_WIN" if name == "an undeclared status" else operator_id
            assert re.search(rf"{title}: [^→]*{re.escape(phrase)}[^→]* → [^→]*{re.escape(helps)}", text), (name, text)
            why = await shown(desk, "why", str(wins[name]))
            if name != "an undeclared status":
                assert phrase in why
                assert helps in why
        opened = {line["operator_id"]: line for line in daemon.lines("circuit.opened")}
        assert opened["op_redirect"]["location"].startswith("https://")
        assert (opened["op_404"]["reason"], opened["op_404"]["response_status"]) == ("misconfigured", 404)
        assert opened["op_refused"]["reason"] == "connect_refused"
        assert "nginx" not in daemon.log_text
        hides = re.search(r"--since -15min \| grep -v '(.*)'\n", RUNBOOK)
        assert hides is not None
        left = [line for line in daemon.log_text.splitlines() if hides[1] not in line]
        assert {json.loads(line)["level"] for line in left} == {"warning"}


async def test_a_database_that_is_away_is_named_by_status(tmp_path: Path, database: Database) -> None:
    async with proxied(database.support) as proxy:
        proxy.refuse_connections()
        code, _, stderr = await command_line_for(tmp_path, proxy.dsn()).run("status")
    assert (code, CAUSES["Postgres away"][3] in stderr) == (3, True)


async def test_a_full_disk_of_the_database_is_named_by_the_daemon(environment: Environment) -> None:
    """Postgres still executes what fits its pages, such as heartbeats."""
    _, first, _, phrase = CAUSES["the database's disk is full"]
    daemon = await environment.fleet.start("host-1")
    await environment.harness.owner.execute(FULL_DISK)
    await environment.harness.place()

    async def says_so() -> bool:
        return phrase in (await daemon.get("/readyz"))[1]

    await until("/readyz names it", says_so)
    assert first.endswith("/readyz")
    await daemon.until_logged("database.lost")
    assert "No space left on device" in daemon.lines("database.lost")[0]["error"]
