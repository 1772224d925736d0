"""A key that cannot be stored now delays no bet: the daemon signs with it, and stores it later."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, Connection, Harness, connected
from tests.support.postgres import Database

REFUSE = """
create function predictu_dispatch.refuse() returns trigger language plpgsql
    as $$ begin raise exception using errcode = 'PD900', message = 'no keys today'; end $$;
create trigger refuse before insert on predictu_dispatch.signing_key
    for each row execute function predictu_dispatch.refuse();
"""


@asynccontextmanager
async def locked(owner: Connection) -> AsyncIterator[None]:
    async with owner.transaction():
        await owner.execute("lock table predictu_dispatch.signing_key in access exclusive mode")
        yield


@asynccontextmanager
async def refused(owner: Connection) -> AsyncIterator[None]:
    await owner.execute(REFUSE)
    yield
    await owner.execute("drop function predictu_dispatch.refuse() cascade")


async def is_stored(harness: Harness) -> bool:
    stored: bool = await harness.owner.fetchval(
        "select exists (select from predictu_dispatch.signing_key where operator_id = $1)", OPERATOR
    )
    return stored


@pytest.mark.parametrize("hindrance", [locked, refused])
async def test_a_daemon_starts_and_delivers_while_its_key_cannot_be_stored(
    environment: Environment, database: Database, hindrance: Callable[[Connection], AbstractAsyncContextManager[None]]
) -> None:
    harness = environment.harness
    async with connected(database.owner, 1) as [owner]:
        async with hindrance(owner):
            daemon = await environment.fleet.start("host-1")
            await harness.place("b-1")
            await environment.until_all_final()
            assert (await harness.bet("b-1"))["state"] == "open"
            if hindrance is refused:
                assert not await is_stored(harness)
                assert [line["chore"] for line in daemon.lines("chore.failed")] == ["register_signing_keys"]
        await until("the key is stored", lambda: is_stored(harness))
