"""Exit codes, metrics, public keys and log lines of a daemon, without secrets."""

import asyncio
import base64
import json
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
from aiohttp import web

import predictu_dispatch
from predictu_dispatch.core.events import Event
from tests.support.daemons import WAIT_S, until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, enqueue, placement_params
from tests.support.postgres import Database, Server, cloned_database
from tests.support.postgres_proxy import Trick, proxied

BY_LANE = {(lane, OPERATOR) for lane in ("interactive", "settlement")}
STORED = ("backlog", "oldest_due_seconds", "unknown_effect", "needs_review")
"""Figures from the database."""


def with_parameter(database: Database, parameter: str) -> str:
    return f"{database.owner}{'&' if '?' in database.owner else '?'}{parameter}"


async def test_each_failed_start_has_its_exit_code_and_message(environment: Environment, postgres: Server) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        async with cloned_database(postgres, "template0") as empty:
            dead = "postgresql://dispatch:hunter2secret@127.0.0.1:1/dispatch"
            expected: dict[str, tuple[int, str, dict[str, Any]]] = {
                "misconfigured": (2, "http.listen", {"http": {"listen": "nowhere"}}),
                "no-database": (3, "the database can't be reached", {"database": {"dsn": dead}}),
                "no-such-login": (
                    3,
                    "the database refused the login",
                    {"database": {"dsn": postgres.dsn(empty.name, "no_such_login")}},
                ),
                "no-such-setting": (
                    2,
                    "must be a DSN without timeout",
                    {"database": {"dsn": with_parameter(empty, "timeout=3")}},
                ),
                "no-such-mode": (2, "sslmode", {"database": {"dsn": with_parameter(empty, "sslmode=on")}}),
                "no-schema": (1, "run `predictu-dispatch migrate`", {"database": {"dsn": empty.owner}}),
                "no-such-host": (1, 'listen on "a..b:0"', {"http": {"listen": "a..b:0"}}),
                "port-taken": (1, f"127.0.0.1:{port}", {"http": {"listen": f"127.0.0.1:{port}"}}),
            }
            daemons = [(environment.fleet.spawn(name, **given[2]), *given[:2]) for name, given in expected.items()]
            for daemon, code, text in daemons:
                assert await daemon.exited() == code, daemon.log_text
                assert text in daemon.log_text
                assert "Traceback" not in daemon.log_text
                assert "hunter2secret" not in daemon.log_text
        known = {
            row["instance"]
            for row in await environment.harness.owner.fetch("select instance from predictu_dispatch.daemon")
        }
        assert known.isdisjoint(expected), "a daemon that never ran is not registered"


async def test_metrics_agree_with_the_audit(environment: Environment) -> None:
    """One bet is won, one rejected, one has an unconfirmed rollback.

    One callback stays in flight.
    """
    harness = environment.harness
    daemon = await environment.fleet.start("host-1")
    await harness.place("b-won")
    await harness.end("BET_WIN", "b-won")
    await environment.until_all_final()
    environment.operator.refuse("PLAYER_NOT_FOUND")
    await environment.adopt("b-refused")
    await harness.end("BET_SELL", "b-refused")
    await environment.adopt("b-rolled-back")
    await harness.rollback("b-rolled-back")
    await environment.until_all_final()
    environment.operator.refuse(None)
    environment.operator.hold()
    await harness.place("b-held")
    waiting = await harness.end("BET_WIN", "b-held")
    await environment.until_in_flight(1)
    assert await harness.state(waiting) == "waiting"

    async def in_flight_shows() -> bool:
        return await daemon.metric("backlog", "interactive", OPERATOR, "in_flight") == 1

    await until("the gauge shows what is in flight", in_flight_shows)
    figures = await daemon.metrics()
    audit = await harness.owner.fetch(
        "select method, verdict, count(*) from predictu_dispatch.attempt group by method, verdict"
    )
    assert figures["attempts_total"] == {(r["method"], OPERATOR, r["verdict"]): r["count"] for r in audit}
    assert figures["confirmed_amount_subunits_total"] == {
        ("EUR", direction, OPERATOR): 500 for direction in ("credit", "debit")
    }
    final = await harness.owner.fetch(
        "select method, state, count(*) from predictu_dispatch.callback where finished_at is not null group by 1, 2"
    )
    assert figures["callbacks_finished_total"] == {(r["method"], OPERATOR, r["state"]): r["count"] for r in final}
    assert figures["attempt_duration_seconds_count"] == {("interactive", OPERATOR): 2, ("settlement", OPERATOR): 2}
    assert figures["delivery_latency_seconds_count"] == {("interactive", OPERATOR): 1, ("settlement", OPERATOR): 1}
    assert figures["pickup_latency_seconds_count"] == {("interactive",): 3, ("settlement",): 2}
    assert figures["in_flight"] == {("interactive", OPERATOR): 1, ("settlement", OPERATOR): 0}
    assert figures["backlog"] == {
        (lane, OPERATOR, state): float((lane, state) in (("interactive", "in_flight"), ("settlement", "waiting")))
        for lane in ("interactive", "settlement")
        for state in ("waiting", "ready", "in_flight")
    }
    assert figures["oldest_due_seconds"] == dict.fromkeys(BY_LANE, 0.0)
    assert figures["unknown_effect"] == {(OPERATOR,): 0.0}
    assert figures["needs_review"] == {(OPERATOR,): 2.0}
    assert figures["rollbacks_total"] == {
        (cause, OPERATOR): float(cause == "requested") for cause in ("enqueued", "requested", "unknown_effect")
    }
    assert figures["leases_lost_total"] == {(): 0}
    assert figures["database_up"] == {(): 1}
    assert list(figures["build_info"].values()) == [1]


async def test_a_figure_that_could_not_be_read_is_absent_and_not_0(environment: Environment) -> None:
    async with proxied(environment.fleet.dsn) as proxy:
        proxy.on_next("fleet_figures", Trick.KEEP_ANSWER)
        daemon = await environment.fleet.start("host-1", database={"dsn": proxy.dsn()})
        await proxy.caught.wait()
        figures = await daemon.metrics()
        assert [name for name in STORED if name in figures] == []
        assert figures["database_up"] == {(): 1}
        proxy.release_answers()

        async def they_are_there() -> bool:
            return set(STORED) <= (await daemon.metrics()).keys()

        await until("the figures are there", they_are_there)


async def test_published_keys_verify_tokens_and_have_no_private_part(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    await environment.harness.place()
    await environment.until_all_final()
    async with daemon.session.get(f"{daemon.url}/keys/{OPERATOR}.json") as response:
        assert (response.status, response.headers["Cache-Control"]) == (200, "public, max-age=60")
        text = await response.text()
    keys = jwt.PyJWKSet.from_dict(json.loads(text))
    [request] = environment.operator.requests
    claims = jwt.decode(request.token, keys[jwt.get_unverified_header(request.token)["kid"]].key, algorithms=["EdDSA"])
    assert claims["jti"] == request.request_id
    # "d" would be the private part of a JWK.
    assert all(set(key) == {"kty", "crv", "x", "kid", "alg", "use"} for key in json.loads(text)["keys"])
    assert (await daemon.get("/keys/op_nobody.json"))[0] == 404


@asynccontextmanager
async def echoing_operator() -> AsyncIterator[str]:
    """An operator whose malformed answer quotes our Authorization header and body."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        header = re.search(rb"(?im)^authorization: .*?$", head)
        length = re.search(rb"(?im)^content-length: (\d+)", head)
        assert header is not None
        assert length is not None
        body = await reader.readexactly(int(length[1]))
        writer.write(b"HTTP/1.1 200 OK\r\nX-Echo\0: " + header[0].strip() + b" " + body + b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callback"


async def test_no_token_signature_body_or_password_is_logged_or_exposed(environment: Environment) -> None:
    """Not even if an operator quotes our token in a malformed answer."""
    secret = "body-marker-0815"
    params: dict[str, Any] = placement_params("b-1") | {"note": secret}
    first = await environment.fleet.start("host-1")
    await enqueue(environment.harness.producer, "BET_MAKE", params)
    await environment.until_all_final()
    texts = [first.log_text, (await first.get("/metrics"))[1], (await first.get(f"/keys/{OPERATOR}.json"))[1]]
    first.kill()
    async with echoing_operator() as url:
        environment.fleet.write_operator(url, interactive={"max_attempts": 1}, settlement={"max_attempts": 1})
        second = await environment.fleet.start("host-2")
        await enqueue(environment.harness.producer, "BET_MAKE", {**params, "bet_id": "b-2"})
        await environment.until_all_final()
        await second.until_logged("callback.exhausted", times=2)
        texts += [second.log_text, (await second.get("/metrics"))[1]]

    everything = "\n".join(texts)
    [request] = environment.operator.requests
    password = urlsplit(environment.fleet.dsn).password
    assert password
    claims = base64.urlsafe_b64decode(request.token.split(".")[1] + "==").decode()
    assert '"digest"' in claims
    for part in (request.token, *request.token.split(".")[1:], "eyJ", secret, password, "PRIVATE"):
        assert part not in everything, part


async def test_each_attempt_has_one_line_whose_keys_are_columns_of_the_audit(environment: Environment) -> None:
    """A retried debit, its confirmation and a rejected credit: three attempts, three lines."""
    busy = iter([web.Response(status=503)])
    environment.operator.answer = lambda _: next(busy, None)
    daemon = await environment.fleet.start("host-1")
    placement = await environment.harness.place()
    await environment.until_all_final()
    environment.operator.refuse("PLAYER_NOT_FOUND")
    win = await environment.harness.end()
    await environment.until_all_final()
    await daemon.until_logged("callback.rejected")

    lines = [line for line in daemon.lines() if "attempt" in line]
    columns = ("attempt", "method", "evidence", "verdict", "reason", "response_status")
    rows = await environment.harness.owner.fetch(
        f"select request_id::text, {', '.join(columns)} from predictu_dispatch.attempt"  # noqa: S608
    )
    assert sorted((line["request_id"], *(line[column] for column in columns)) for line in lines) == sorted(
        tuple(row) for row in rows
    )
    assert [(line["event"], line["request_id"], line["level"]) for line in lines] == [
        ("callback.retried", str(placement), "info"),
        ("callback.delivered", str(placement), "info"),
        ("callback.rejected", str(win), "info"),
    ]


async def test_log_records_of_libraries_become_log_lines_without_tokens() -> None:
    program = (
        "import logging\n"
        "from predictu_dispatch.core.settings import LogSettings\n"
        "from predictu_dispatch.edge.telemetry.log import configure_log\n"
        "configure_log(LogSettings(format='json'))\n"
        "try:\n"
        "    1 / 0\n"
        "except ZeroDivisionError:\n"
        "    logging.getLogger('aiohttp.server').exception('it has seen %s', 'eyJhbGciOiJ9.eyJpc3MiOiJ9.c2lnbmF0')\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stderr=asyncio.subprocess.PIPE)
    _, stderr = await asyncio.wait_for(child.communicate(), WAIT_S)
    [line] = [json.loads(line) for line in stderr.splitlines()]
    assert (line["event"], line["level"], line["library"]) == ("library.logged", "error", "aiohttp.server")
    assert line["message"] == "it has seen [token withheld]"
    assert "ZeroDivisionError" in line["exception"]


def test_every_log_event_is_a_noun_and_a_past_verb_of_the_enum() -> None:
    assert [event for event in Event if not re.fullmatch(r"[a-z]+\.[a-z_]+", event)] == []
    modules = Path(predictu_dispatch.__file__).parent.rglob("*.py")
    literal = re.compile(r"\blog\.(debug|info|warning|error)\(\s*[\"']")
    assert [module.name for module in modules if literal.search(module.read_text(encoding="utf-8"))] == []
