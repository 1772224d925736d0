"""Why a circuit opened stands in the log and on every screen, without a body, token or escape."""

from pathlib import Path
from uuid import UUID

import pytest
from aiohttp import web

from tests.support.circuits import THRESHOLD, enqueue_balance, operator_row, until_final, until_operator_is, wins
from tests.support.circuits import write_operator as write
from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR
from tests.support.operators import Request
from tests.support.postgres import Database

NEVER_S = 600.0
PAGE = "<title>Log in</title> \x1b[31mHTTP 200\x1b[0m {token}\nsecond line\n" + "x" * 500
SHOWN = r"<title>Log in</title> \x1b[31mHTTP 200\x1b[0m [token withheld]"


def redirecting(request: Request) -> web.Response:
    """A login page in front of the wallet, which quotes our token in both."""
    headers = {"Location": f"https://login.example.com/?next={request.token}"}
    return web.Response(status=302, headers=headers, text=PAGE.replace("{token}", request.token))


async def open_by(environment: Environment) -> UUID:
    """Open the circuit by redirects; return a credit that waits for it."""
    write(environment, open_s=NEVER_S)
    [waiting] = await wins(environment, 1)
    environment.operator.answer = redirecting
    await environment.fleet.start("host-1")
    for _ in range(THRESHOLD):
        await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, circuit="open")
    return waiting


@pytest.fixture
def commands(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.operations)


async def shown(commands: CommandLine, *arguments: str) -> str:
    """Return a command's output with its line breaks as spaces."""
    _, stdout, _ = await commands.run(*arguments)
    return " ".join(stdout.split())


async def test_the_log_and_the_screens_say_what_the_operator_answered_last(
    environment: Environment, commands: CommandLine
) -> None:
    waiting = await open_by(environment)
    [daemon] = environment.fleet.daemons
    await daemon.until_logged("circuit.opened")
    [opened] = daemon.lines("circuit.opened")
    assert (opened["reason"], opened["response_status"]) == ("misconfigured", 302)
    assert opened["location"] == "https://login.example.com/?next=[token withheld]"
    assert "Log in" not in daemon.log_text
    row = await operator_row(environment)
    assert (row["last_failure_reason"], row["last_failure_status"]) == ("misconfigured", 302)

    async def is_settled() -> bool:
        """The audit row of the attempt that the line names may be written a moment later."""
        body: bytes | None = await environment.harness.owner.fetchval(
            "select response_body from predictu_dispatch.attempt where request_id = $1 and attempt = $2",
            UUID(opened["request_id"]),
            opened["attempt"],
        )
        return b"second line" in (body or b"")

    await until("the audit has the whole answer", is_settled)
    for command in (["status"], ["why", str(waiting)]):
        text = await shown(commands, *command)
        for part in ("HTTP 302", "Location: https://login.example.com/?next=[token withheld]", SHOWN):
            assert part in text, (command, part, text)
        assert "second line" not in text
        assert not [request for request in environment.operator.requests if request.token in text]
    _, overview = await commands.run_json("status")
    assert overview["lanes"][0]["last_failure_answer"].startswith("<title>Log in</title>")


async def test_ping_shows_the_answer(environment: Environment, commands: CommandLine) -> None:
    await open_by(environment)
    text = await shown(commands, "ping", OPERATOR)
    for part in ("HTTP 302", "Location: https://login.example.com/?next=[token withheld]", SHOWN):
        assert part in text, (part, text)
    _, ping = await commands.run_json("ping", OPERATOR)
    assert (ping["location"], ping["answer"].partition(" ")[0]) == (
        "https://login.example.com/?next=[token withheld]",
        "<title>Log",
    )


@pytest.mark.parametrize("answer", ["", "\n\n", "\udcff"])
async def test_an_answer_without_a_first_line_is_left_out(
    environment: Environment, commands: CommandLine, answer: str
) -> None:
    body = answer.encode("utf-8", "surrogateescape")
    environment.operator.answer = lambda _: web.Response(status=500, body=body)
    write(environment, open_s=NEVER_S)
    await environment.fleet.start("host-1")
    for _ in range(THRESHOLD):
        await until_final(environment, await enqueue_balance(environment))
    await until_operator_is(environment, circuit="open")
    text = await shown(commands, "status")
    assert "the operator answered HTTP 500" in text
    assert ("answer: \ufffd" in text) == (body == b"\xff")
