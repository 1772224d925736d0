"""sync_operators() registers operators, also if some of their rows are locked."""

import asyncio

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import OPERATOR, Connection, Harness


async def sync(daemon: Connection, *operator_ids: str) -> list[str]:
    """Register these operators with a new fingerprint; returns those that could not be written."""
    count = len(operator_ids)
    rows = await asyncio.wait_for(
        daemon.fetch(
            query("sync_operators"), [*operator_ids], [True] * count, [15.0] * count, [0.0] * count, ["new"] * count
        ),
        5,
    )
    return [row["operator_id"] for row in rows]


async def fingerprint(harness: Harness, operator_id: str) -> str | None:
    found: str | None = await harness.owner.fetchval(
        "select config_fingerprint from predictu_dispatch.operator where operator_id = $1", operator_id
    )
    return found


async def test_a_locked_operator_row_does_not_block_a_daemons_start(harness: Harness) -> None:
    """Nor a reload."""
    before = await fingerprint(harness, OPERATOR)
    async with harness.owner.transaction():
        await harness.owner.execute(
            "select from predictu_dispatch.operator where operator_id = $1 for update", OPERATOR
        )
        assert await sync(harness.daemon, "op_a", OPERATOR, "op_z") == [OPERATOR]
        assert [await fingerprint(harness, name) for name in ("op_a", OPERATOR, "op_z")] == ["new", before, "new"]
        # Unchanged rows are not locked.
        assert await sync(harness.daemon, "op_a", "op_z") == []
    assert await sync(harness.daemon, "op_a", OPERATOR, "op_z") == []
    assert await fingerprint(harness, OPERATOR) == "new"
