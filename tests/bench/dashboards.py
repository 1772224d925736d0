"""Draw the pictures in deploy/grafana from real daemons and a real Prometheus.

.venv/bin/python -m tests.bench.dashboards [--seconds 240] [--folder deploy/grafana]

The scenario has six operators (one flaky, one down for a while, one slow, one disabled) and two
daemons and kills one of them. It inserts runs of reconciliation that find differences. Needs
Debian's `prometheus`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.embedded_postgres.binaries import free_port
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.dashboard_drawing import Series, drawn
from tests.support.daemons import Daemon, Fleet, until
from tests.support.differences import finished_run, item
from tests.support.harness import Connection, connected, enqueue, placement_params, terminal_params
from tests.support.operators import Operator, Request, running_operator
from tests.support.postgres import cloned_database, create_template, server_of

_DEPLOY = Path(__file__).parents[2] / "deploy"
_OPERATORS = ("op_calm", "op_down", "op_flaky", "op_slow", "op_strict")
_DISABLED = "op_off"
_CURRENCIES = {"op_slow": "JPY"}
_BETS_PER_S = 12.0
_POINTS = 120
_ROLLED_BACK = 0.06
_ROLLBACK = "select predictu_dispatch.rollback_bet($1, $2, 'no trade')"
_LANES: dict[str, Any] = {
    "interactive": {"deadline_s": 6.0, "attempt_timeout_s": 3.0, "initial_delay_s": 0.2, "max_delay_s": 2.0},
    "settlement": {
        "deadline_s": 0,
        "attempt_timeout_s": 3.0,
        "max_attempts": 4,
        "initial_delay_s": 0.5,
        "max_delay_s": 5.0,
    },
    "circuit": {"failure_threshold": 10, "open_s": 2.0},
    "health": {"ping_interval_s": 5.0},
}


def behaviour(name: str, chance: random.Random, *, began_s: float, seconds: float) -> Callable[[Request], Any]:
    """The operator's faults: the answers that replace its wallet's answers."""

    def answer(request: Request) -> web.Response | None:
        part = (time.monotonic() - began_s) / seconds
        if name == "op_down" and 0.4 < part < 0.6:
            return web.Response(status=502)
        if name == "op_flaky" and chance.random() < 0.12:
            return web.Response(status=500)
        if name == "op_strict" and request.method == "BET_MAKE" and chance.random() < 0.2:
            return web.json_response({"status": "INSUFFICIENT_FUNDS"})
        if name == "op_strict" and request.method == "BET_WIN" and chance.random() < 0.02:
            return web.json_response({"status": "PLAYER_NOT_FOUND"})
        return None

    return answer


async def play(producer: Connection, chance: random.Random, *, seconds: float) -> None:
    """Place bets at all operators; end most of them, roll back some."""
    end_s, number = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        number += 1
        operator_id = chance.choice(_OPERATORS)
        params = placement_params(
            f"b-{number}",
            amount=chance.randrange(100, 2000),
            player_id=f"p-{number % 40}",
            currency=_CURRENCIES.get(operator_id, "EUR"),
        )
        # In one transaction, so that the bet is still placing when its terminal is enqueued.
        async with producer.transaction():
            placement = await enqueue(producer, "BET_MAKE", params, operator_id=operator_id)
            method = chance.choice(("BET_WIN", "BET_LOSE", "BET_SELL"))
            terminal = terminal_params(method, {**params, "placement_request_id": placement})
            if chance.random() < _ROLLED_BACK:
                await producer.execute(_ROLLBACK, operator_id, params["bet_id"])
            else:
                await enqueue(producer, method, terminal, operator_id=operator_id)
        await asyncio.sleep(chance.expovariate(_BETS_PER_S))


async def reconcile(owner: Connection, *, seconds: float) -> None:
    """Insert runs of yesterday: without differences, then with some, then with one left."""
    day = datetime.now(UTC).date() - timedelta(days=1)
    twice = item("request:1", "booked_twice", day=day, ours=-1999)
    missing = [item(f"request:{n}", day=day, ours=1500 * n) for n in (2, 3, 4)]
    yen = item("request:5", day=day, currency="JPY", ours=4000)
    turns: list[dict[str, list[dict[str, Any]]]] = [
        {name: [] for name in _OPERATORS},
        {"op_down": [twice, *missing], "op_slow": [yen]},
        {"op_down": missing[:1]},
    ]
    for turn in turns:
        for operator_id, items in turn.items():
            is_complete = operator_id != "op_strict"
            await finished_run(owner, *items, first=day, operator_id=operator_id, is_complete=is_complete)
        await owner.execute("update predictu_dispatch.maintenance_chore set due_at = now()")
        await asyncio.sleep(seconds * 0.3)


async def prometheus(folder: Path, targets: dict[str, str], stack: AsyncExitStack) -> str:
    """Start a Prometheus that scrapes the targets every two seconds; returns its address.

    `targets` has the address of each instance by its name.
    """
    program = shutil.which("prometheus")
    if program is None:
        sys.exit("prometheus is not on PATH; on Debian: apt install prometheus")
    rules = _DEPLOY / "prometheus" / "predictu-dispatch.rules.yml"
    configs = [{"targets": [address], "labels": {"instance": name}} for name, address in targets.items()]
    (folder / "prometheus.yml").write_text(
        f"global: {{scrape_interval: 2s}}\nrule_files: ['{rules}']\nscrape_configs:\n"
        f"- job_name: predictu-dispatch\n  static_configs: {json.dumps(configs)}\n"
    )
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        *(program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        *(f"--web.listen-address={address}", "--log.level=error"),
    )

    async def end() -> None:
        process.terminate()
        await process.wait()

    stack.push_async_callback(end)
    return f"http://{address}"


async def ask(
    http: aiohttp.ClientSession, url: str, target: dict[str, Any], *, operator_id: str, began_s: float, ended_s: float
) -> list[Series]:
    """The series of one panel expression over the time of the scenario."""
    query = target["expr"].replace("$__rate_interval", "15s").replace("$operator", operator_id)
    step_s = (ended_s - began_s) / _POINTS
    asked = {"query": query, "start": f"{began_s:.3f}", "end": f"{ended_s:.3f}", "step": f"{step_s:.3f}"}
    async with http.get(f"{url}/api/v1/query_range", params=asked) as response:
        answer = await response.json()
    assert answer["status"] == "success", answer
    found: list[Series] = []
    for one in answer["data"]["result"]:
        name = target["legendFormat"]
        for label, value in one["metric"].items():
            name = name.replace("{{" + label + "}}", value)
        found.append((name, [(float(at), float(value)) for at, value in one["values"]]))
    return found


async def run(*, seconds: float, folder: Path) -> None:
    chance = random.Random(1)
    async with AsyncExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = server_of(stack.enter_context(EmbeddedPostgres(fsync=False)))
        database = await stack.enter_async_context(cloned_database(server, await create_template(server)))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        fleet = Fleet(folder=scratch / "fleet", dsn=database.dispatcher, session=http)
        fleet.folder.mkdir()
        stack.callback(fleet.end)
        operators: list[Operator] = []
        for name in (*_OPERATORS, _DISABLED):
            key = create_key_file(fleet.folder / f"{name}.pem", "EdDSA")
            operator = await stack.enter_async_context(running_operator(name, key.public_pem()))
            fleet.write_operator(
                operator.url,
                operator_id=name,
                enabled=name != _DISABLED,
                signing={"key_file": f"../{name}.pem"},
                **_LANES,
            )
            operators.append(operator)
        daemons: list[Daemon] = [await fleet.start(name) for name in ("host-1", "host-2")]
        targets = {f"{daemon.instance}:9464": daemon.url.removeprefix("http://") for daemon in daemons}
        url = await prometheus(scratch, targets, stack)
        [producer] = await stack.enter_async_context(connected(database.producer, 1))
        [owner] = await stack.enter_async_context(connected(database.owner, 1))

        async def answers() -> bool:
            try:
                async with http.get(f"{url}/-/ready") as response:
                    return response.status == 200
            except aiohttp.ClientError:
                return False

        await until("Prometheus is ready", answers)
        for operator in operators:
            operator.answers_in_s = 0.25 if operator.operator_id == "op_slow" else 0.02
            operator.answer = behaviour(operator.operator_id, chance, began_s=time.monotonic(), seconds=seconds)
        began_s = time.time()
        playing = asyncio.create_task(play(producer, chance, seconds=seconds))
        reconciling = asyncio.create_task(reconcile(owner, seconds=seconds))
        await asyncio.sleep(seconds * 0.75)
        daemons[1].kill()
        await playing
        await reconciling
        ended_s = time.time()
        for name in ("fleet", "operator"):
            board = json.loads((_DEPLOY / "grafana" / f"{name}.json").read_text(encoding="utf-8"))
            panels: dict[int, list[Series]] = {}
            for panel in board["panels"]:
                panels[panel["id"]] = [
                    series
                    for target in panel.get("targets", [])
                    for series in await ask(http, url, target, operator_id="op_down", began_s=began_s, ended_s=ended_s)
                ]
            (folder / f"{name}.svg").write_text(
                drawn(board, panels, began_s=began_s, ended_s=ended_s), encoding="utf-8"
            )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=240.0)
    arguments.add_argument("--folder", type=Path, default=_DEPLOY / "grafana")
    given = arguments.parse_args()
    asyncio.run(run(seconds=given.seconds, folder=given.folder))


if __name__ == "__main__":
    main()
