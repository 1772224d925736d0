"""Answers of the operator's application that nobody expects: what becomes of the bets.

Real daemons; the reference operator in a process of its own where its own answers are tested.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from predictu_dispatch.demo.process import reference_operator
from predictu_dispatch.embedded_postgres.binaries import free_port
from tests.support.circuits import operator_row, until_final, until_operator_is, wins, write_operator
from tests.support.command_line import command_line_for
from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, know_operators
from tests.support.operators import Request

NEVER_S = 600.0
SETTLEMENTS = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND")
REASONS = {"BET_NOT_FOUND": "bet_not_found", "PLAYER_BLOCKED": "unknown_status"}


def answering(status: str, *methods: str, code: int = 200, **headers: str) -> Any:
    """Return an operator's `answer` with this status to these methods; the others are booked."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: (
        web.json_response({"status": status}, status=code, headers=headers) if request.method in methods else None
    )


@pytest.mark.parametrize("status", REASONS)
async def test_settlements_that_the_operator_does_not_know_open_no_circuit_and_lose_no_bet(
    environment: Environment, status: str
) -> None:
    """Such answers came ten in a row and opened the circuit: 81 % of the other bets were lost."""
    write_operator(environment, open_s=NEVER_S, health={"ping_interval_s": 0.2})
    environment.operator.answer = answering(status, *SETTLEMENTS, code=404)
    daemon = await environment.fleet.start("host-1")
    refused = await wins(environment, 20)
    placed = []
    for n in range(20):
        placed.append(await environment.harness.place(f"b-{n}"))
        await until_final(environment, placed[-1])
    await until_final(environment, *refused)
    await environment.until_all_final()
    assert [await environment.harness.state(bet) for bet in placed] == ["delivered"] * 20
    for win in refused:
        ended = await environment.harness.callback(win)
        is_clear = status == "BET_NOT_FOUND"
        assert (ended["state"], ended["reason"], ended["attempts"]) == ("rejected", REASONS[status], 1)
        assert (ended["effect"], ended["operator_status"]) == ("none" if is_clear else "unknown", status)
    assert daemon.lines("circuit.opened") == []
    row = await operator_row(environment)
    assert (row["circuit"], row["health"], row["consecutive_failures"]) == ("closed", "healthy", 0)
    assert await daemon.metric("misconfigured_total", OPERATOR) == 0


async def test_the_review_list_the_commands_and_the_log_name_an_unknown_status_and_where_to_declare_it(
    environment: Environment,
) -> None:
    environment.operator.answer = answering("PLAYER_BLOCKED", "BET_WIN")
    daemon = await environment.fleet.start("host-1")
    [win] = await wins(environment, 1)
    await until_final(environment, win)
    [listed] = await environment.harness.owner.fetch("select * from predictu_dispatch.needs_review")
    for text in ('"PLAYER_BLOCKED"', "[statuses]", f"operators/{OPERATOR}.toml", "not known"):
        assert text in listed["reason"]
    commands = command_line_for(environment.fleet.folder, environment.fleet.dsn)
    for command in ("why", "show"):
        _, stdout, _ = await commands.run(command, str(win))
        shown = " ".join(stdout.split())
        assert f'unknown status "PLAYER_BLOCKED": declare it under [statuses] in operators/{OPERATOR}.toml' in shown
    [line] = [line for line in daemon.lines("callback.rejected") if line["request_id"] == str(win)]
    assert (line["reason"], line["operator_status"]) == ("unknown_status", "PLAYER_BLOCKED")
    # Declared meanwhile: a person sends it again, with the same bytes.
    environment.operator.answer = lambda _: None
    await environment.harness.owner.execute("select predictu_dispatch.retry_callback($1, $2, 'test')", OPERATOR, win)
    await environment.until_all_final()
    assert await environment.harness.state(win) == "delivered"


@pytest.mark.parametrize("status", REASONS)
async def test_a_placement_with_an_unclear_answer_is_rolled_back_and_costs_nothing(
    environment: Environment, status: str
) -> None:
    """Whether the operator booked the debit or not; a waiting settlement is never sent."""
    booked_first = []

    def books_and_answers(request: Request) -> web.Response | None:
        if request.method != "BET_MAKE":
            return None
        if request.envelope["params"]["bet_id"] == "b-booked":
            booked_first.append(environment.operator.booked(request))
        return web.json_response({"status": status})

    environment.operator.answer = books_and_answers
    placed = {bet_id: await environment.harness.place(bet_id) for bet_id in ("b-booked", "b-not-booked")}
    waiting = await environment.harness.end("BET_WIN", "b-booked")
    await environment.fleet.start("host-1")
    await environment.until_all_final()
    for bet_id, placement in placed.items():
        ended = await environment.harness.callback(placement)
        assert (ended["state"], ended["reason"], ended["effect"]) == ("rejected", REASONS[status], "unknown")
        [rollback] = await environment.harness.rollbacks(bet_id)
        assert (rollback["state"], (await environment.harness.bet(bet_id))["state"]) == ("delivered", "closed")
    assert len(booked_first) == 1
    cancelled = await environment.harness.callback(waiting)
    assert (cancelled["state"], cancelled["review_since"] is not None) == ("cancelled", True)
    assert environment.operator.balance["p1"] == 0
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_a_rollback_with_an_unknown_status_is_retried_until_it_is_definite(environment: Environment) -> None:
    await environment.adopt("b-1")
    environment.operator.answer = answering("PLAYER_BLOCKED", "BET_ROLLBACK", code=422)
    await environment.fleet.start("host-1")
    rollback = await environment.harness.rollback("b-1")
    await until("it is retried", lambda: len(environment.operator.sent(rollback)) >= 3)
    assert {reason for *_, reason, _ in await environment.audit(rollback)} == {"unknown_status"}
    environment.operator.answer = lambda _: None
    await environment.until_all_final()
    assert await environment.harness.state(rollback) == "delivered"
    assert (environment.operator.balance["p1"], (await operator_row(environment))["consecutive_failures"]) == (0, 0)


async def test_a_declared_temporary_status_is_retried_after_the_time_that_the_operator_names(
    environment: Environment,
) -> None:
    environment.fleet.write_operator(
        environment.operator.url,
        circuit={"failure_threshold": 3, "open_s": NEVER_S},
        settlement={"max_delay_s": 2.0},
        statuses={"retry": ["MAINTENANCE"]},
    )
    environment.operator.answer = answering("MAINTENANCE", "BET_WIN", Retry_After="1")
    await environment.fleet.start("host-1")
    [win] = await wins(environment, 1)
    await until("it is retried", lambda: len(environment.operator.sent(win)) >= 2)
    first, second = environment.operator.sent(win)[:2]
    assert second.arrived_at_s - first.arrived_at_s > 0.95
    environment.operator.answer = lambda _: None
    await environment.until_all_final()
    assert (await environment.audit(win))[0][1:4] == ("retry", "answered", "operator_retry")
    assert (await operator_row(environment))["circuit"] == "closed"


async def test_a_ping_that_the_application_answers_closes_the_circuit_whatever_it_says(
    environment: Environment,
) -> None:
    """Two daemons: the one that decides may not be the one that sent the PING."""
    write_operator(environment, open_s=0.3, statuses={"retry": ["MAINTENANCE"]})
    for instance in ("host-1", "host-2"):
        await environment.fleet.start(instance)
    for status, code in (("MAINTENANCE", 200), ("NO_SUCH_METHOD", 405), ("WHAT", 400), ("BET_NOT_FOUND", 404)):
        environment.operator.answer = lambda _: web.Response(status=500)
        await environment.harness.owner.execute(
            "update predictu_dispatch.operator set circuit = 'open', health = 'down', circuit_since = now(),"
            " consecutive_failures = 3, ping_at = now(), revision = revision + 1"
        )
        await until_operator_is(environment, circuit="half_open")
        environment.operator.answer = answering(status, "PING", code=code)
        await until_operator_is(environment, circuit="closed", health="healthy", consecutive_failures=0)


@asynccontextmanager
async def a_reference_operator(environment: Environment, tmp_path: Path) -> AsyncIterator[str]:
    """Run the reference operator with one player; yield its URL for callbacks."""
    port = free_port()
    process = reference_operator(
        OPERATOR,
        folder=tmp_path,
        port=port,
        public_key=environment.operator.public_pem,
        algorithm="EdDSA",
        amount_format="subunits",
        fault_seed=1,
    )
    await process.start()
    try:
        started = json.loads(await process.first_line())
        async with environment.fleet.session.post(
            f"{started['admin_url']}/_admin/players", json=[{"player_id": "p1", "currency": "EUR", "balance": 100_000}]
        ) as added:
            assert added.status < 300, await added.text()
        yield f"http://127.0.0.1:{port}/predictu"
    finally:
        await process.close()


async def test_the_reference_operators_bet_not_found_hurts_no_other_bet(
    environment: Environment, tmp_path: Path
) -> None:
    """Bets adopted here and unknown there, as after a migration: their settlements get 404."""
    await know_operators(environment.harness.daemon, interactive_deadline_s=60.0)
    async with a_reference_operator(environment, tmp_path) as url:
        environment.fleet.write_operator(url, circuit={"failure_threshold": 3, "open_s": NEVER_S})
        daemon = await environment.fleet.start("host-1")
        refused = await wins(environment, 10)
        placed = [await environment.harness.place(f"b-{n}") for n in range(30)]
        await environment.until_all_final()
        assert {await environment.harness.state(bet) for bet in placed} == {"delivered"}
        for win in refused:
            ended = await environment.harness.callback(win)
            assert (ended["state"], ended["reason"], ended["effect"]) == ("rejected", "bet_not_found", "none")
        assert daemon.lines("circuit.opened") == []
