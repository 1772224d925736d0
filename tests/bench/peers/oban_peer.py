"""Oban for Python on psycopg: claims in batches, updates finished jobs one by one."""

from contextlib import AsyncExitStack

from common import PRODUCER_CONNECTIONS, Peer, Post, enqueue_on_schedule, main, payloads, posting, stop_by_sigterm
from oban import Job, Oban, worker
from oban.schema import install
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

_QUEUE = "callback"
_FILL_BATCH = 1000
_INSTANCES = 4
"""Instances in one process on one queue. A third faster than 1; 8 are not faster."""
_AT_ONCE = 32
"""Jobs per instance; 16 and 64 are not faster, nor is another pause between claims than Oban's 5
ms."""
_CONNECTIONS = 10
"""Each instance uses one connection, sometimes two."""


@worker(queue=_QUEUE)
class Callback:
    """The payload is the argument `body`, as text, so that every attempt sends the same bytes."""

    post: Post

    async def process(self, job: Job) -> None:
        await Callback.post(job.args["body"].encode())


def _pool(dsn: str, size: int, *, autocommit: bool = False) -> AsyncConnectionPool[AsyncConnection]:
    return AsyncConnectionPool(dsn, min_size=size, max_size=size, kwargs={"autocommit": autocommit}, open=False)


async def _prepare(dsn: str) -> None:
    async with _pool(dsn, 1) as pool:
        await install(pool)


async def _fill(dsn: str, count: int) -> None:
    async with _pool(dsn, 1) as pool:
        oban = Oban(pool=pool)
        for batch in payloads(count, _FILL_BATCH):
            await oban.enqueue_many(Callback.new({"body": payload}) for payload in batch)


async def _work(dsn: str, url: str, _count: int | None) -> None:
    await _deliver(dsn, url, _INSTANCES)


async def _trickle(dsn: str, url: str) -> None:
    """One instance: each new job wakes all instances."""
    await _deliver(dsn, url, 1)


async def _deliver(dsn: str, url: str, instances: int) -> None:
    stop = stop_by_sigterm()
    async with (
        posting(url, instances * _AT_ONCE) as Callback.post,
        _pool(dsn, _CONNECTIONS) as pool,
        AsyncExitStack() as running,
    ):
        for number in range(instances):
            # Concurrent instances need different names.
            oban = Oban(pool=pool, name=f"bench-{number}", node=f"node-{number}", queues={_QUEUE: _AT_ONCE})
            await running.enter_async_context(oban)
        await stop.wait()


async def _enqueue(dsn: str, rate: float, seconds: float, seed: int) -> None:
    # Autocommit saves the round trips of BEGIN and COMMIT.
    async with _pool(dsn, PRODUCER_CONNECTIONS, autocommit=True) as pool:
        oban = Oban(pool=pool)
        await enqueue_on_schedule(lambda payload: oban.enqueue(Callback.new({"body": payload})), rate, seconds, seed)


if __name__ == "__main__":
    main(Peer(prepare=_prepare, fill=_fill, work=_work, enqueue=_enqueue, trickle=_trickle))
