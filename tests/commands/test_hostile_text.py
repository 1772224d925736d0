"""Text of operators, producers and people on a terminal and in logs: shown, and never obeyed."""

import ast
import asyncio
import csv
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from predictu_dispatch.commands import output
from predictu_dispatch.core.printable import printable
from tests.support.command_line import CommandLine, command_line_for
from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, WAIT_S, enqueue, placement_params
from tests.support.operators import Request
from tests.support.postgres import Database
from tests.support.terminal import terminal

HOSTILE = (
    "\x1b[31337m\x1b[66;6H\x1b]0;title\x07\x9b31337m\x85\x7f\b\b\r[red]x[/red]\u2028\u2029"
    "\u202e\u2066\u200b\u200d\ufeff\ufe0f\u3164\U000e0041é→😀\nINJECTED ROW"
)
"""Escape sequences in both forms, markup, bidi, zero width, tags, other encodings, a new row."""
INVISIBLE = "\u202e\u2066\u200b\u3164\U000e0041é→😀[red]x[/red]"
"""What an id may have."""
OWN_STYLES = re.compile(r"\x1b\[(0|1|22|3[1236])m")
SCREEN = re.compile(r"\x1b\[(\?1049[hl]|\?25[hl]|H|2J|[0-9]*[AK]|[0-9;]*m)")
"""What `top` sends beside text."""
ENCODINGS = ("utf-8", "latin-1", "ascii")


def obeyed(text: str) -> list[str]:
    """What a terminal or a reader would act on."""
    found = [repr(c) for c in text if not (c.isprintable() or c in "\r\n") or (printable(c) != c and c not in "\r\n")]
    return found + [line for line in re.split(r"[\r\n]", text) if line.strip().startswith("INJECTED")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A database full of hostile text, which the real parts wrote."""

    environment: Environment
    person: CommandLine
    bet_id: str
    placement: uuid.UUID
    win: uuid.UUID
    rollback: uuid.UUID

    async def on_a_terminal(self, *arguments: str, encoding: str = "utf-8", answer: bytes = b"") -> tuple[int, str]:
        """The exit code, and everything that the terminal received, decoded strictly."""
        person, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        os.write(person, answer)
        process = await asyncio.to_thread(
            subprocess.Popen,
            self.person.process(*arguments),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "PYTHONIOENCODING": encoding, "TERM": "xterm-256color"},
        )
        os.close(theirs)
        received = await asyncio.wait_for(asyncio.to_thread(_read_all, person), 3 * WAIT_S)
        return await asyncio.to_thread(process.wait, WAIT_S), received.decode(encoding)


def _read_all(descriptor: int) -> bytes:
    received = b""
    try:
        while octets := os.read(descriptor, 65_536):
            received += octets
    except OSError:  # A pty ends with EIO.
        pass
    os.close(descriptor)
    return received


def hostile_answer(request: Request) -> web.Response | None:
    """Delivers a debit with a hostile transaction id; answers all else with a hostile status."""
    is_debit = request.method == "BET_MAKE"
    answer = {"status": "OK" if is_debit else HOSTILE, "transaction_id": HOSTILE, "balance": 100}
    return web.json_response(answer)


@pytest.fixture
async def scene(environment: Environment, database: Database, tmp_path: Path) -> Scene:
    lane = {"max_attempts": 1}
    environment.fleet.write_operator(environment.operator.url, settlement=lane, health={"ping_interval_s": 0})
    environment.operator.answer = hostile_answer
    await environment.fleet.start("host-1")
    harness, bet_id = environment.harness, f"bet {HOSTILE}"
    params = placement_params(bet_id, player_id=f"player {HOSTILE}")
    placement = await enqueue(harness.producer, "BET_MAKE", params)
    await environment.until_all_final()
    end = {"player_id": params["player_id"], "currency": "EUR", "amount": 500, "bet_id": bet_id}
    win = await enqueue(harness.producer, "BET_WIN", end)
    await enqueue(harness.producer, "BET_MAKE", placement_params("other"))
    await environment.until_all_final()
    # Not answered with JSON at all, and rolled back for a hostile reason.
    environment.operator.answer = lambda _: web.Response(text=HOSTILE, status=503, headers={"X-Evil": "é→\u202e"})
    rollback = await harness.producer.fetchval(
        "select predictu_dispatch.rollback_bet($1, 'other', $2)", OPERATOR, HOSTILE
    )
    await environment.until_all_final()
    (tmp_path / "person").mkdir()
    person = command_line_for(tmp_path / "person", database.operations)
    assert (await person.run("retry", str(win), "--by", f"ann {HOSTILE}"))[0] == 0
    await environment.until_all_final()
    return Scene(environment=environment, person=person, bet_id=bet_id, placement=placement, win=win, rollback=rollback)


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_a_terminal_of_any_encoding_shows_hostile_text_and_obeys_none(scene: Scene, encoding: str) -> None:
    harness, win, by = scene.environment.harness, str(scene.win), f"ann {HOSTILE}"
    shown = ""
    commands: list[tuple[int, tuple[str, ...], bytes]] = [
        (0, ("status",), b""),
        (0, ("show", str(scene.rollback)), b""),
        (0, ("why", win), b""),
        (1, ("retry", "--operator", OPERATOR), b"n\n"),
        (0, ("show", win, "--json"), b""),
        (2, ("show", win, HOSTILE), b""),
        (0, ("show", win), b""),
        (0, ("show", str(scene.placement)), b""),
        (0, ("show", "--bet", OPERATOR, scene.bet_id), b""),
        (1, ("show", "--bet", HOSTILE, HOSTILE), b""),
        (0, ("why", str(scene.rollback)), b""),
        (1, ("ping", OPERATOR), b""),
        (1, ("ping", HOSTILE), b""),
        (0, ("resolve", win, "--reason", HOSTILE, "--by", by), b""),
        (1, ("resolve", win, "--reason", "again", "--by", by), b""),
        (0, ("show", win), b""),
        (0, ("why", win), b""),
        (0, ("pause", OPERATOR, "--reason", f"pause {HOSTILE}", "--by", by), b""),
        (1, ("pause", OPERATOR, "--reason", "again", "--by", by), b""),
        (1, ("ping", OPERATOR), b""),
        (0, ("status",), b""),
        (0, ("resume", OPERATOR, "--by", by), b""),
        (2, (HOSTILE,), b""),
        (2, ("show", f"--{HOSTILE}"), b""),
        (2, (f"--{HOSTILE}",), b""),
        (2, ("retry", "--operator", OPERATOR, "--method", HOSTILE), b""),
    ]
    for code, arguments, answer in commands if encoding == "utf-8" else commands[:6]:
        ended, text = await scene.on_a_terminal(*arguments, encoding=encoding, answer=answer)
        assert ended == code, text
        assert obeyed(OWN_STYLES.sub("", text)) == [], (arguments, text)
        shown += text
        if "--json" in arguments:
            audit = json.loads(text)["callbacks"][0]["audit"]
            assert json.loads(audit[0]["response_body"])["status"] == HOSTILE
    assert "\\x1b[31337m" in shown
    assert "[red]x[/red]" in shown
    assert (await harness.bet(scene.bet_id))["bet_id"] == scene.bet_id


async def test_a_statement_shows_hostile_text_on_a_terminal_also_as_csv_and_obeys_none(scene: Scene) -> None:
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    period = ("--currency", "EUR", "--from", today, "--until", today, "--zone", "UTC")
    # The win's outcome is unknown, so it is listed.
    for arguments in (("statement", OPERATOR, *period), ("statement", OPERATOR, *period, "--csv")):
        code, text = await scene.on_a_terminal(*arguments)
        assert code == 0, text
        assert obeyed(OWN_STYLES.sub("", text)) == [], text
        assert str(scene.win) in text
        assert "\\x1b[31337m" in text


async def test_reconcile_shows_hostile_text_and_obeys_none(scene: Scene, database: Database) -> None:
    command_line_for(scene.person.folder, database.reconciler)
    scene.person.write_operator(
        OPERATOR, f'operator_id = "{OPERATOR}"\ncallback_url = "https://a.example/"\n[signing]\nkey_file = "none.pem"\n'
    )
    ledger = scene.person.folder / f"{HOSTILE.replace('/', '|')}.csv"
    today = datetime.now(UTC)
    with ledger.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("booked_at", "amount", "currency", "method", "transaction_id", "bet_id"))
        for amount, bet_id in (("-500", scene.bet_id), ("-500", f"b{INVISIBLE}"), (HOSTILE, "b")):
            writer.writerow((today.isoformat(), amount, "EUR", "BET_MAKE", f"t{INVISIBLE}", bet_id))
    days = ("--from", str(today.date() - timedelta(days=1)), "--until", str(today.date()))
    shown = ""
    for words in ((OPERATOR, *days, str(ledger), "--unreadable"), (OPERATOR, *days, str(ledger), "--json"), ("list",)):
        code, text = await scene.on_a_terminal("reconcile", *words)
        assert code == int(words != ("list",)), text
        assert obeyed(OWN_STYLES.sub("", text)) == [], text
        shown += text
    assert "\\x1b[31337m" in shown
    assert "3 lines, 1 read, 2 unreadable" in " ".join(shown.split())
    assert "missing here" in shown


async def test_top_shows_hostile_text_and_obeys_none(scene: Scene) -> None:
    assert (await scene.person.run("pause", OPERATOR, "--reason", HOSTILE))[0] == 0
    with terminal(scene.person, "top", "--every", "0.2") as screen:
        await until("the first screen", lambda: screen.shows("paused for"))
        screen.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(screen.process.wait, WAIT_S) == 0
    assert obeyed(SCREEN.sub("", screen.written)) == []
    assert "\x1b[31337" not in screen.written
    assert "\x1b[66" not in screen.written


LOGS = """
import sys
import structlog
from predictu_dispatch.core.settings import LogSettings
from predictu_dispatch.edge.telemetry.log import configure_log
configure_log(LogSettings(format={form!r}))
log = structlog.get_logger()
log.warning("an event", status={hostile!r}, several=[{hostile!r}], error=ValueError({hostile!r}), none=None, number=7)
try:
    raise ValueError({hostile!r}.replace("\\n", " "))
except ValueError:
    log.exception("a failure")
print({hostile!r}.replace("\\n", " "), file=sys.stderr)
"""
CRASH = """
from predictu_dispatch.commands.output import prepare_streams
prepare_streams()
raise ValueError({hostile!r})
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("program", "code"),
    [(LOGS.replace("{form!r}", "'console'"), 0), (LOGS.replace("{form!r}", "'json'"), 0), (CRASH, 1)],
)
def test_logs_and_tracebacks_show_hostile_text_and_obey_none(program: str, code: int, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program.format(hostile=HOSTILE)],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=WAIT_S,
    )
    assert done.returncode == code, done.stderr
    text = done.stderr.decode(encoding)
    assert obeyed(re.sub(r"\x1b\[[0-9]{1,2}m", "", text)) == []
    assert "1b[31337m" in text


def test_text_that_lost_its_style_is_escaped_and_styled_text_keeps_it() -> None:
    red = output.styled(HOSTILE, colour="red")
    assert obeyed(OWN_STYLES.sub("", red)) == []
    assert output.joined(red) == red
    assert "\x1b" not in output.joined(f"{red}")


PRINTS = {"echo", "secho", "style", "confirm", "prompt", "print", "write", "print_exception", "print_exc", "pager"}
"""Functions and methods that print."""


def prints(module: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in PRINTS or name.startswith("echo"):
                found.append(f"{module.name}:{node.lineno} {name}()")
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [f"{module.name}:{node.lineno} imports {name}" for name in names if name.startswith("rich")]
    return found


def test_commands_print_with_output_py_only() -> None:
    package = Path(output.__file__).parents[1]
    modules = [*(package / "commands").rglob("*.py"), package / "cli.py", package / "__main__.py"]
    assert len(modules) > 10
    assert [call for module in modules if module.name != "output.py" for call in prints(module)] == []
    assert prints(Path(output.__file__)), "the check finds calls"


@pytest.mark.parametrize("value", [HOSTILE, {"key": [HOSTILE]}, b"\xff\x9b\x00", uuid.UUID(int=1)])
def test_json_is_ascii_and_has_the_text_as_it_is(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"value": value})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert obeyed(printed) == []
    expected = {bytes: "\\xff\\x9b\x00", uuid.UUID: str(value)}.get(type(value), value)
    assert json.loads(printed) == {"value": expected}
