"""Commits that a daemon relies on are durable, whatever the database's settings."""

from __future__ import annotations

import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import Harness, claim, delivered, settle


@pytest.mark.parametrize(("habit", "held"), [("off", "on"), ("local", "local"), ("on", "on")])
@pytest.mark.parametrize("asked", ["claim", "settle", "expire"])
async def test_a_daemons_commit_is_durable_even_if_the_default_is_asynchronous(
    harness: Harness, asked: str, habit: str, held: str
) -> None:
    """If a crash of Postgres lost a claim, a request would be missing in the audit.

    Stricter settings stay.
    """
    await harness.place()
    leases = await claim(harness.daemon) if asked == "settle" else []
    async with harness.daemon.transaction():
        await harness.daemon.execute("select set_config('synchronous_commit', $1, true)", habit)
        if asked == "claim":
            assert len(await claim(harness.daemon)) == 1
        elif asked == "settle":
            await settle(harness.daemon, *(delivered(lease) for lease in leases))
        else:
            await harness.daemon.fetch(query("expire"), 10)
        assert await harness.daemon.fetchval("select current_setting('synchronous_commit')") == held
