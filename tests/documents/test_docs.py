"""The documents match the code and keep the rules of style; files are where the layout says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from predictu_dispatch.core.specification import bet_diagram, callback_diagram
from predictu_dispatch.edge.postgres.sql_files import definitions

ROOT = Path(__file__).parents[2]
TOP = {"pyproject.toml", "README.md", "predictu_dispatch", "config", "sql", "tests", "deploy", "Makefile"}
TEXTS = [
    path.relative_to(ROOT)
    for path in sorted(ROOT.rglob("*.*"))
    if path.suffix in {".md", ".py", ".sql", ".sh"}
    and not any(re.match(r"\.|node_modules$", part) for part in path.relative_to(ROOT).parts)
]
DOCUMENTS = [path for path in TEXTS if path.suffix == ".md"]
WIDTH = 100
PATH = r"`([\w./-]+\.(?:py|sql|md|toml|sh|json|svg|service|timer|yml)|[a-z_]+(?:/[a-z_]+)*/)`"
SHORTENED = ("predictu_dispatch", "sql/functions", "sql/migrations", "config", "tests")
"""Folders from which a document may name a path without saying so."""
NOT_IN_THE_TREE = {
    *("operators/keys/", "config/operators/keys/", "deploy/containers/", "report.json"),
    "share/predictu-dispatch/certification-report.schema.json",
}
"""Paths of an installation, and files that commands write."""
IN_A_BUNDLE = {
    *("start/", "keys/", "bundle.json", "entry.json", "first_seen.json", "retired.json", "jwk.json", "before.json"),
    *("after.json", "request.headers.json", "response.headers.json"),
}
"""Paths in the file that `dispute` writes."""
OVERLOADS = {"settle_reports": "settle"}
"""Files of a second function of a name, and the name."""
PLANNING = r"\b(?:[Ii]ssue \d+|D[1-9]\d?)\b"


def test_the_state_diagrams_are_drawn_from_the_tables() -> None:
    text = (ROOT / "predictu_dispatch" / "DESIGN.md").read_text(encoding="utf-8")
    drawn = re.findall(r"```mermaid\n(.*?)\n```", text, flags=re.DOTALL)
    assert drawn == [callback_diagram(), bet_diagram()], (
        "run `python -m predictu_dispatch.core.specification` and paste it in"
    )


@pytest.mark.parametrize("folder", ["predictu_dispatch/reference_operator", "config", "sql", "tests", "deploy"])
def test_each_folder_says_what_it_is(folder: str) -> None:
    assert len((ROOT / folder / "README.md").read_text(encoding="utf-8")) > 200


def test_the_sql_readme_lists_every_subject() -> None:
    text = (ROOT / "sql" / "README.md").read_text(encoding="utf-8")
    subjects = {definition.name.partition("/")[0] for definition in definitions()}
    assert [subject for subject in sorted(subjects) if f"`{subject}/`" not in text] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    folders = [ROOT, ROOT / document.parent, *(ROOT / folder for folder in SHORTENED)]
    text = (ROOT / document).read_text(encoding="utf-8")
    # Capitals stand for any name.
    named = (
        {path for path in re.findall(PATH, text) if not re.search(r"[A-Z]{4}", path)} - NOT_IN_THE_TREE - IN_A_BUNDLE
    )
    assert [path for path in named if not any((folder / path).exists() for folder in folders)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_prose_is_at_most_100_columns_wide(document: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    # Tables, code and links cannot be wrapped.
    prose = [line for line in text.splitlines() if not re.match(r" {4}|\s*\||<!--", line) and "](" not in line]
    assert [line for line in prose if len(line) > WIDTH] == []


def test_no_text_refers_to_planning() -> None:
    """A text states the fact; it names no decision and no issue by its number."""
    found = {str(path): re.findall(PLANNING, (ROOT / path).read_text(encoding="utf-8")) for path in TEXTS}
    assert {path: numbers for path, numbers in found.items() if numbers} == {}


def test_nothing_else_stands_at_the_top() -> None:
    assert {entry.name for entry in ROOT.iterdir() if not entry.name.startswith(".")} == TOP


def test_every_definition_file_is_named_after_what_it_defines() -> None:
    for definition in definitions():
        kind = "view" if definition.is_view else "function"
        defined = re.findall(rf"^create or replace {kind} predictu_dispatch\.(\w+)", definition.sql, re.MULTILINE)
        stem = Path(definition.name).stem
        name = OVERLOADS.get(stem, stem)
        assert defined == [name], definition.name
        # A name with two functions needs the types of the parameters.
        revoked = rf" predictu_dispatch\.{name}(\(predictu_dispatch\.\w+\[\]\))? from public;"
        assert re.search(revoked, definition.sql), definition.name
