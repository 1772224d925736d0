"""The line that a report has for each scenario gives the verdict that the report says."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from predictu_dispatch.certification import report
from tests.certification.mutants import changes_of
from tests.certification.sandbox import PLAYERS, STATUSES, Sandbox, changed_operator
from tests.reference_operator.client import OPERATOR_ID

VERDICTS = {"money-debit": "PASSED", "repetition-at-once": "FAILED"}


def first_line(sandbox: Sandbox, folder: Path) -> list[str]:
    return [
        *("predictu-dispatch", "certify", "--url", sandbox.url, "--key", str(sandbox.key_file)),
        *("--operator-id", OPERATOR_ID, "--allow-insecure-http", "--allow-private-addresses"),
        *(word for player in PLAYERS for word in ("--player", player)),
        *(word for status in STATUSES.rejected for word in ("--rejected", status)),
        *("--reports", str(folder)),
        *(word for scenario in VERDICTS for word in ("--only", scenario)),
    ]


async def played(line: Sequence[str], folder: Path) -> tuple[int, dict[str, Any]]:
    """Run the line in a shell's way; return its exit code and the new report."""
    earlier = _reports(folder)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "predictu_dispatch", *line[1:]), cwd=folder, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(120):
        code = await process.wait()
    (newest,) = _reports(folder) - earlier
    return code, json.loads(newest.read_bytes())


def _reports(folder: Path) -> set[Path]:
    return set(folder.glob(f"*/{report.REPORT}"))


async def test_a_line_to_repeat_gives_what_the_report_says(tmp_path: Path) -> None:
    folder = tmp_path / "reports of runs"
    folder.mkdir()
    async with changed_operator(tmp_path, changes_of("no-idempotency")) as sandbox:
        code, document = await played(first_line(sandbox, folder), folder)
        assert (code, document["passed"]) == (1, False)
        verdicts = {each["id"]: each["verdict"] for each in document["scenarios"]}
        assert verdicts == VERDICTS
        for scenario in document["scenarios"]:
            line = shlex.split(scenario["repeat"])
            assert line[0] == "predictu-dispatch"
            code, again = await played(line, folder)
            assert [(each["id"], each["verdict"]) for each in again["scenarios"]] == [
                (scenario["id"], scenario["verdict"])
            ]
            assert code == (0 if again["passed"] else 1)
