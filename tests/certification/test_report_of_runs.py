"""Reports of real runs, against a faulty copy of the reference operator and a hostile operator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
from aiohttp import web

from predictu_dispatch.certification import report
from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.reversal import Patience
from predictu_dispatch.certification.runner import play
from predictu_dispatch.certification.scenario import Scenario
from predictu_dispatch.certification.scenarios import ALL
from predictu_dispatch.certification.steps import Pause
from predictu_dispatch.certification.target import Target
from tests.certification.made_results import RUN
from tests.certification.mutants import changes_of
from tests.certification.sandbox import Sandbox, changed_operator, new_key
from tests.support.html_page import read_page

FIRST_OF_A_TOKEN = 16
"""Fewer characters of a signature may be part of something else."""
IMPATIENT = Patience(tries=1, first_delay_s=0.0, delay_max_s=0.0, limit_s=5.0)
VALIDATOR = jsonschema.Draft202012Validator(
    json.loads(report.schema()), format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)


async def played(target: Target, folder: Path, scenarios: Collection[Scenario]) -> RunResult:
    result = await play(target, tuple(scenarios), folder, run=RUN, is_whole_suite=False, patience=IMPATIENT)
    report.write_reports(result, folder, repeat_line=lambda scenario: f"certify --only {scenario}")
    return result


def groups(*names: str) -> list[Scenario]:
    """The scenarios of these groups that take no long time."""
    is_long = "answer-never-read", "load-sixty-four", "five-hundred"
    return [
        one
        for one in ALL
        if one.group in names
        and not one.id.endswith(is_long)
        and not any(isinstance(step, Pause) for step in one.steps)
    ]


async def test_the_report_of_a_faulty_operator_fits_the_schema_and_tells_the_truth(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    async with changed_operator(tmp_path, changes_of("no-idempotency")) as sandbox:
        result = await played(sandbox.target(), folder, groups("connection", "signature", "repetition", "recovery"))
        balances = sandbox.balances()

    document = json.loads((folder / report.REPORT).read_bytes())
    assert [f"{fault.json_path}: {fault.message[:200]}" for fault in VALIDATOR.iter_errors(document)] == []
    assert not document["passed"]
    by_id = {each["id"]: each for each in document["scenarios"]}
    at_once = by_id["repetition-at-once"]
    assert at_once["verdict"] == "FAILED"
    [debit, again, *_] = [each for each in at_once["requests"] if each["method"] == "BET_MAKE"]
    assert debit["body"] == again["body"]
    assert debit["token"]["claims"]["digest"] == debit["body"]["sha256"]
    assert [player["after"] for player in document["money"]["players"]] == [*balances.values()]
    page = read_page((folder / report.PAGE).read_text(encoding="utf-8"))
    assert page.faults == []
    assert {each.scenario.id for each in result.results} <= page.ids


async def test_no_token_of_a_run_is_in_a_file_of_its_folder(tmp_path: Path) -> None:
    """The operator quotes each token, and the one before it, in every part of its answer."""
    folder = tmp_path / "run"
    async with quoting_operator(tmp_path) as (sandbox, signatures):
        await played(sandbox.target(), folder, groups("connection", "signature", "money"))

    assert len(signatures) > 20
    for file in folder.iterdir():
        content = file.read_text(encoding="utf-8")
        assert [each for each in signatures if each[:FIRST_OF_A_TOKEN] in content] == [], file.name
    assert "****" in (folder / report.REPORT).read_text(encoding="utf-8")
    assert read_page((folder / report.PAGE).read_text(encoding="utf-8")).faults == []


@asynccontextmanager
async def quoting_operator(folder: Path) -> AsyncIterator[tuple[Sandbox, list[str]]]:
    signatures: list[str] = []
    earlier = "none"

    async def answer(request: web.Request) -> web.Response:
        nonlocal earlier
        body = json.loads(await request.read())
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if signature := token.rpartition(".")[2]:
            signatures.append(signature)
        quoted = {"note": [token, f"<script>{earlier}", f"\x1b[2J{token[:-4]}"], "transaction_id": earlier or "t"}
        is_readable = body["method"] in ("PING", "BALANCE")
        status, earlier = "OK" if is_readable else token, token
        answered = {"status": status, "balance": 10_000, **quoted}
        return web.json_response(answered, headers={"X-Quoted": token, "X-Earlier": quoted["note"][1]})

    application = web.Application()
    application.router.add_post("/", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield Sandbox(url=f"http://{host}:{port}/", folder=folder, key=new_key(folder / "sandbox.pem")), signatures
    finally:
        await runner.cleanup()
