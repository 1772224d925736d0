"""The connection that listens: whoever floods it costs only the hints."""

import asyncio

from predictu_dispatch.edge.postgres import connections as edge
from predictu_dispatch.edge.postgres.connections import listen
from tests.support.daemons import until
from tests.support.harness import WAIT_S, connected
from tests.support.postgres import Database

CHANNEL = "predictu_dispatch_due"
FLOOD = "select pg_notify($1, n::text) from generate_series(1, $2::integer) n"


async def test_a_login_that_floods_a_channel_is_ignored_for_some_seconds(database: Database) -> None:
    received: list[str] = []
    pauses: asyncio.Queue[float] = asyncio.Queue()
    resume = asyncio.Event()

    async def sleep(delay_s: float) -> None:
        pauses.put_nowait(delay_s)
        await resume.wait()

    async def until_received(payload: str) -> None:
        await until(f"{payload!r} came", lambda: payload in received)

    listening = asyncio.create_task(
        listen(database.dispatcher, [CHANNEL], lambda _, payload: received.append(payload), sleep=sleep)
    )
    try:
        # Listening begins with an empty payload.
        await until_received("")
        async with connected(database.stranger, 1) as [stranger]:
            await stranger.execute(FLOOD, CHANNEL, 50)
            await until_received("50")
            await stranger.execute(FLOOD, CHANNEL, 5 * edge._PER_S_MAX)
            assert await asyncio.wait_for(pauses.get(), WAIT_S) == edge._FLOOD_PAUSE_S
            assert len(received) < 2 * edge._PER_S_MAX
            received.clear()
            resume.set()
            await until_received("")
            await stranger.execute("select pg_notify($1, 'a hint')", CHANNEL)
            await until_received("a hint")
    finally:
        listening.cancel()
