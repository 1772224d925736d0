"""Write the tables of certification/README.md from the scenarios and from the kill matrix.

.venv/bin/python -m tests.support.certification_documents
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from predictu_dispatch.certification.report.words import GROUPS
from predictu_dispatch.certification.scenario import Need
from predictu_dispatch.certification.scenarios import ALL

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "predictu_dispatch" / "certification" / "README.md"
KILL_MATRIX = ROOT / "tests" / "certification" / "kill_matrix.json"
ALSO_MAX = 3
"""How many of the other scenarios that fail are named."""
NEEDS = {
    Need.TLS: "an https:// URL",
    Need.TWO_PLAYERS: "two players",
    Need.NEXT_KEY: "a next key",
    Need.DECIMAL: '`amount_format = "decimal"`',
    Need.LEDGER: "`--ledger`",
}
IS_MADE_BY_THE_TESTS = "The tests have not written it yet."


def scenario_tables() -> str:
    """A table for each group."""
    lines = []
    for group, heading in GROUPS.items():
        chosen = [scenario for scenario in ALL if scenario.group is group]
        if not chosen:
            continue
        lines += [f"### {heading}", "", "| id | scenario | what the fault costs |", "|---|---|---|"]
        for scenario in chosen:
            needs = " and ".join(NEEDS[need] for need in sorted(scenario.needs))
            why = f"{scenario.why} Needs {needs}." if needs else scenario.why
            lines.append(_row(f"`{scenario.id}`", scenario.title, why))
        lines.append("")
    return "\n".join(lines).rstrip("\n")


def kill_matrix() -> list[dict[str, Any]]:
    """The results of the mutants; empty if the tests have not written them."""
    if not KILL_MATRIX.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(KILL_MATRIX.read_text(encoding="utf-8"))
    order = [scenario.id for scenario in ALL]
    return sorted(rows, key=lambda row: order.index(row["scenario"]))


def kill_matrix_table() -> str:
    """A row for each mutant, in the order of the scenarios."""
    rows = kill_matrix()
    if not rows:
        return IS_MADE_BY_THE_TESTS
    lines = ["| bug | found by | its verdict | other scenarios that fail |", "|---|---|---|---|"]
    lines += [_row(row["bug"], f"`{row['scenario']}`", row["verdict"], _listed(row["also"])) for row in rows]
    return "\n".join(lines)


def _listed(ids: list[str]) -> str:
    more = len(ids) - ALSO_MAX
    listed = ", ".join(f"`{scenario}`" for scenario in ids[:ALSO_MAX]) or "none"
    return f"{listed} and {more} more" if more > 0 else listed


def kill_rate() -> str:
    """The sentence that says how many bugs are found."""
    rows = kill_matrix()
    found = sum(row["verdict"] == "FAILED" for row in rows)
    return (
        f"{found} of the {len(rows)} bugs below, each built into a wallet, are found by the scenario made for it."
        if rows
        else IS_MADE_BY_THE_TESTS
    )


def expected(document: str) -> str:
    """Return the document with the tables as they must be."""
    for name, content in (
        ("kill-rate", kill_rate()),
        ("scenarios", f"\n{scenario_tables()}\n"),
        ("kill-matrix", f"\n{kill_matrix_table()}\n"),
    ):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        head, is_marked, rest = document.partition(begin)
        _, is_closed, tail = rest.partition(end)
        assert is_marked and is_closed, f"{begin} … {end} is missing"  # noqa: PT018 - both or none
        document = f"{head}{begin}\n{content}\n{end}{tail}"
    return document


def _row(*cells: str) -> str:
    escaped = " | ".join(cell.replace("|", "\\|") for cell in cells)
    return f"| {escaped} |"


if __name__ == "__main__":
    DOCUMENT.write_text(expected(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
