"""PgQueuer on asyncpg: claims in batches, deletes and logs finished jobs in batches."""

import asyncpg
from common import PRODUCER_CONNECTIONS, Peer, enqueue_on_schedule, main, payloads, posting, stop_by_sigterm
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

_ENTRYPOINT = "callback"
_FILL_BATCH = 1000
_BATCH = 100
"""50 to 500 are equally fast: the limit is the Python work per job."""
_AT_ONCE = 200
"""The minimum for this batch size; as fast as 400, 1,000 or none. Without it, PgQueuer claims all
jobs."""
_CONNECTIONS = 3
"""One listens, one claims, one logs; 2 and 5 are not faster."""


async def _keep(_connection: asyncpg.Connection) -> None:
    """No reset: no statement changes the session, and a reset costs a round trip."""


def _pool(dsn: str, size: int) -> asyncpg.Pool:
    return asyncpg.create_pool(dsn, min_size=size, max_size=size, reset=_keep)


async def _prepare(dsn: str) -> None:
    async with _pool(dsn, 1) as pool:
        await Queries(AsyncpgPoolDriver(pool)).install()


async def _fill(dsn: str, count: int) -> None:
    async with _pool(dsn, 1) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        for batch in payloads(count, _FILL_BATCH):
            bodies: list[bytes | None] = [payload.encode() for payload in batch]
            await queries.enqueue([_ENTRYPOINT] * len(batch), bodies, [0] * len(batch))


async def _work(dsn: str, url: str, _count: int | None) -> None:
    async with posting(url, _AT_ONCE) as post, _pool(dsn, _CONNECTIONS) as pool:
        queuer = PgQueuer.from_asyncpg_pool(pool)
        queuer.shutdown = queuer.qm.shutdown = queuer.sm.shutdown = stop_by_sigterm()

        @queuer.entrypoint(_ENTRYPOINT)
        async def _callback(job: Job) -> None:
            await post(job.payload or b"")

        await queuer.run(batch_size=_BATCH, max_concurrent_tasks=_AT_ONCE)


async def _enqueue(dsn: str, rate: float, seconds: float, seed: int) -> None:
    async with _pool(dsn, PRODUCER_CONNECTIONS) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        await enqueue_on_schedule(lambda payload: queries.enqueue(_ENTRYPOINT, payload.encode()), rate, seconds, seed)


if __name__ == "__main__":
    main(Peer(prepare=_prepare, fill=_fill, work=_work, enqueue=_enqueue))
