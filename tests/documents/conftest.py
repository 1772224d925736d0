"""The producer of the README's examples, with and without a daemon."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.market import Market, open_market
from tests.support.postgres import Database


@pytest.fixture
async def market(tmp_path: Path, database: Database) -> AsyncIterator[Market]:
    async with open_market(tmp_path, database) as market:
        yield market


@pytest.fixture
async def still_market(tmp_path: Path, database: Database) -> AsyncIterator[Market]:
    """Without a daemon: nothing is delivered."""
    async with open_market(tmp_path, database, delivers=False) as market:
        yield market
