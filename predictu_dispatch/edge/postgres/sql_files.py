"""The SQL files: migrations in order, functions and views, indexes, queries by name.

A wheel carries them inside the package. An editable install does not, because hatch leaves forced
includes out of it; then the project's `sql/` is read.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

_MIGRATION_NAME = re.compile(r"(?P<version>\d{4})_(?P<noun>[a-z_]+)\.sql")
_COMPATIBLE_FROM = re.compile(r"-- compatible_from: (?P<version>\d{4})\n")
_HEADER = re.compile(r"(?:--.*\n)+")
_SIGNATURE = re.compile(r"^revoke all on function predictu_dispatch\.(?P<signature>.+) from public;$", re.MULTILINE)
"""A function's name, with its parameters' types if two functions have that name."""
_VIEWS = "views"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One forward-only step of the schema; `sha256` detects an edited file."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return _sha256(self.sql)

    @property
    def compatible_from(self) -> int:
        """The oldest release (its last migration) that may run on the schema after this step.

        The file's first line says so; without it only releases that have this migration may.
        """
        declared = _COMPATIBLE_FROM.match(self.sql)
        return int(declared["version"]) if declared else self.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """The one definition of a function or view; `name` is its path below `sql/functions/`."""

    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return _sha256(self.sql)

    @property
    def is_view(self) -> bool:
        return self.name.startswith(f"{_VIEWS}/")

    @property
    def signature(self) -> str:
        match = _SIGNATURE.search(self.sql)
        return match["signature"] if match else Path(self.name).stem

    @property
    def statements(self) -> str:
        """The file's statements, and a COMMENT ON with the comment at the head of the file."""
        header = _HEADER.match(self.sql)
        lines = header[0].splitlines() if header else []
        comment = " ".join(line.removeprefix("--").strip() for line in lines).replace("'", "''")
        kind = "view" if self.is_view else "function"
        return f"{self.sql}\ncomment on {kind} predictu_dispatch.{self.signature} is '{comment}';\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index that is built concurrently, after the migrations."""

    name: str
    sql: str
    parent: str = ""
    """Of a partition's index: the index to which it is attached then."""


def _folder() -> Traversable:
    packaged = files("predictu_dispatch") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "sql"


@cache
def migrations() -> tuple[Migration, ...]:
    """All migrations of this build, by version, without a gap."""
    found = []
    for file in (_folder() / "migrations").iterdir():
        match = _MIGRATION_NAME.fullmatch(file.name)
        if match:
            found.append(Migration(version=int(match["version"]), name=file.name, sql=file.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.version)
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise RuntimeError(
            f"migrations must be numbered 0001, 0002, … without a gap: {[migration.name for migration in found]}"
        )
    return tuple(found)


@cache
def definitions() -> tuple[Definition, ...]:
    """All functions and views of this build, in the order in which they are created: views last."""
    found = [
        Definition(name=f"{subject.name}/{file.name}", sql=file.read_text(encoding="utf-8"))
        for subject in (_folder() / "functions").iterdir()
        if subject.is_dir()
        for file in subject.iterdir()
        if file.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda definition: (definition.is_view, definition.name)))


@cache
def indexes() -> tuple[Index, ...]:
    """All indexes of this build that are built concurrently, by name."""
    found = [
        Index(name=file.name.removesuffix(".sql"), sql=file.read_text(encoding="utf-8"))
        for file in (_folder() / "indexes").iterdir()
        if file.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda index: index.name))


@cache
def query(name: str) -> str:
    """The one statement in `sql/queries/<name>.sql`."""
    return (_folder() / "queries" / f"{name}.sql").read_text(encoding="utf-8")


def read_queries() -> None:
    """Reads every statement into memory, so that an upgrade does not affect running daemons."""
    for file in (_folder() / "queries").iterdir():
        if file.name.endswith(".sql"):
            query(file.name.removesuffix(".sql"))
