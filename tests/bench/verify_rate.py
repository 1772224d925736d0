"""How many rows `audit verify` compares in a second of CPU time, that of Postgres included.

.venv/bin/python -m tests.bench.verify_rate [ROWS]
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import asyncpg

from predictu_dispatch.edge.postgres.audit_reader import AuditReader, open_audit_reader
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.evidence.trusted_keys import TrustedKeys
from predictu_dispatch.evidence.verification import verify
from predictu_dispatch.evidence.verification_result import Request
from tests.support.postgres import Server, cloned_database, create_template, server_of
from tests.support.sealing import insert_attempts, open_sealer

_ROWS: Final = 200_000
_OPERATORS: Final = ("op_a", "op_b")
_AT_ONCE: Final = 10_000
_RATE_MIN: Final = 40_000
_TICKS_PER_S: Final = 100


async def measure(server: Server, rows: int) -> float:
    """Print three measurements; return the median rate."""
    template = await create_template(server)
    rates = []
    async with cloned_database(server, template) as database:
        owner = await asyncpg.connect(database.owner)
        for number in range(rows // _AT_ONCE):
            await insert_attempts(owner, _AT_ONCE, _OPERATORS[number % len(_OPERATORS)])
        await owner.execute("vacuum analyze")
        async with open_sealer(database.dispatcher) as sealer:
            await sealer.seal_all()
        for _ in range(3):
            async with open_audit_reader(database.auditor, application_name="verify") as reader:
                server_s, began_s = await cpu_s_of(reader), time.process_time()
                result = await verify(reader, Request(operator_id=None, keys=TrustedKeys()))
                ours_s, server_s = time.process_time() - began_s, await cpu_s_of(reader) - server_s
            assert result.is_clean, result.faults.first
            rates.append(result.rows / (ours_s + server_s))
            print(  # noqa: T201 - a script
                f"{result.rows:,} rows: {ours_s:.2f} s here, {server_s:.2f} s in Postgres,"
                f" {rates[-1]:,.0f} rows a second of CPU"
            )
        await owner.close()
    return sorted(rates)[1]


async def cpu_s_of(reader: AuditReader) -> float:
    """The CPU time of its session's process."""
    [[pid]] = await reader.fetch_text("select pg_backend_pid()")
    stat = await asyncio.to_thread(Path(f"/proc/{pid}/stat").read_text, encoding="ascii")
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else _ROWS
    with EmbeddedPostgres(fsync=False) as embedded:
        rate = asyncio.run(measure(server_of(embedded), rows))
    sys.exit(rate < _RATE_MIN)


if __name__ == "__main__":
    main()
