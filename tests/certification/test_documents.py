"""The guide's tables are those of the program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from predictu_dispatch.certification.scenarios import ALL
from tests.support import certification_documents as documents


def test_the_guide_has_the_tables_of_the_scenarios_and_of_the_kill_matrix() -> None:
    guide = documents.DOCUMENT.read_text(encoding="utf-8")
    assert guide == documents.expected(guide), "run `python -m tests.support.certification_documents`"
    assert all(f"| `{scenario.id}` |" in guide for scenario in ALL)


def test_the_kill_matrix_is_in_the_order_of_the_scenarios(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [
        {"mutant": "m-2", "bug": "b | 2", "scenario": ALL[-1].id, "verdict": "WARNING", "also": []},
        {"mutant": "m-1", "bug": "b 1", "scenario": ALL[0].id, "verdict": "FAILED", "also": [ALL[1].id] * 5},
    ]
    (tmp_path / "matrix.json").write_text(json.dumps(rows), encoding="utf-8")
    monkeypatch.setattr(documents, "KILL_MATRIX", tmp_path / "matrix.json")

    assert documents.kill_matrix_table().splitlines()[2:] == [
        f"| b 1 | `{ALL[0].id}` | FAILED | {', '.join([f'`{ALL[1].id}`'] * 3)} and 2 more |",
        f"| b \\| 2 | `{ALL[-1].id}` | WARNING | none |",
    ]
    assert documents.kill_rate().startswith("1 of the 2 bugs below")
