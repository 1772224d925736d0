"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from predictu_dispatch.core.diagrams import bet_diagram, callback_diagram
from predictu_dispatch.core.methods import Method
from predictu_dispatch.edge.postgres.sql_files import definitions

ROOT = Path(__file__).parents[2]
TOP = {"pyproject.toml", "README.md", "predictu_dispatch", "config", "sql", "tests", "deploy", "Makefile"}


def test_the_state_diagrams_are_drawn_from_the_tables() -> None:
    text = (ROOT / "predictu_dispatch" / "DESIGN.md").read_text(encoding="utf-8")
    drawn = re.findall(r"```mermaid\n(.*?)\n```", text, flags=re.DOTALL)
    assert drawn == [callback_diagram(), bet_diagram()], (
        "run `python -m predictu_dispatch.core.diagrams` and paste it in"
    )


@pytest.mark.parametrize("folder", ["predictu_dispatch/reference_operator", "config", "sql", "tests", "deploy"])
def test_each_folder_says_what_it_is(folder: str) -> None:
    assert len((ROOT / folder / "README.md").read_text(encoding="utf-8")) > 200


def test_the_sql_readme_lists_every_subject() -> None:
    text = (ROOT / "sql" / "README.md").read_text(encoding="utf-8")
    subjects = {definition.name.partition("/")[0] for definition in definitions()}
    assert [subject for subject in sorted(subjects) if f"`{subject}/`" not in text] == []


def test_every_path_that_the_documents_name_exists() -> None:
    for document in (ROOT / "README.md", ROOT / "predictu_dispatch" / "DESIGN.md"):
        for path in re.findall(r"`((?:sql|flow|core|edge)/[\w./]+\.(?:py|sql))", document.read_text(encoding="utf-8")):
            assert (ROOT / path).exists() or (ROOT / "predictu_dispatch" / path).exists(), (
                f"{document.name} names {path}"
            )


def test_nothing_else_stands_at_the_top() -> None:
    """DESIGN.md 9: the visible top level is fixed."""
    assert {entry.name for entry in ROOT.iterdir() if not entry.name.startswith(".")} == TOP


def test_the_diagram_of_methods_is_complete() -> None:
    text = (ROOT / "sql" / "migrations" / "0001_schema.sql").read_text(encoding="utf-8")
    assert [method for method in Method if f"'{method}'" not in text] == []
