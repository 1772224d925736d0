"""The SQL files: migrations in order, queries by name.

They lie in `sql/` at the project's top. A wheel carries them inside the package; an editable install does not (hatch
leaves forced includes out of it), so the package's resources are looked at first and the project's folder second.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_MIGRATION_NAME = re.compile(r"(?P<version>\d{4})_(?P<noun>[a-z_]+)\.sql")
_COMPATIBLE_FROM = re.compile(r"-- compatible_from: (?P<version>\d{4})\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One forward-only step of the schema; `sha256` is over its text, so that an edited one is noticed."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def compatible_from(self) -> int:
        """The oldest build, named by the last migration it has, that may run on the schema after this step.

        The file's first line says so; where it says nothing, no build without this very file may. Source: D65.
        """
        declared = _COMPATIBLE_FROM.match(self.sql)
        return int(declared["version"]) if declared else self.version


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
        message = f"migrations must be numbered 0001, 0002, … without a gap: {[migration.name for migration in found]}"
        raise RuntimeError(message)
    return tuple(found)


@cache
def query(name: str) -> str:
    """The one statement in `sql/queries/<name>.sql`."""
    return (_folder() / "queries" / f"{name}.sql").read_text(encoding="utf-8")


def read_queries() -> None:
    """Every statement is in memory: a file that cannot be opened later, or is another one by then, changes nothing."""
    for file in (_folder() / "queries").iterdir():
        if file.name.endswith(".sql"):
            query(file.name.removesuffix(".sql"))
