"""Procrastinate, on psycopg: each job is claimed by a statement of its own, and each done one updated by another."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common import PRODUCER_CONNECTIONS, Peer, Post, enqueue_on_schedule, main, payloads, posting, stop_by_sigterm
from procrastinate import App, PsycopgConnector
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

_FILL_BATCH = 1000
_WORKERS = 8
"""In one process: each claims one job at a time. A third faster than 1; 2 and 4 are between, 16 is no faster."""
_AT_ONCE = 8
"""Of each worker."""
_CONNECTIONS = 16
"""For each worker one that claims and one that records; each has a third of its own, which listens."""

# It warns that a task of a main module has no lasting name; ours is given.
logging.getLogger("procrastinate").setLevel(logging.ERROR)
app = App(connector=PsycopgConnector())


class _Sender:
    """What a job posts with: a task is a function of the module."""

    post: Post


@app.task(name="callback")
async def callback(body: str) -> None:
    """One job; the payload is text, because what is sent must be the same bytes each time."""
    await _Sender.post(body.encode())


async def _commit_each(connection: AsyncConnection) -> None:
    """Each statement is a transaction, without a BEGIN and a COMMIT to wait for: a fifth faster, as durable."""
    await connection.set_autocommit(True)


@asynccontextmanager
async def _opened(dsn: str, size: int) -> AsyncIterator[None]:
    """The app runs on a pool of ours: its own would ask the server before each statement whether it is still there."""
    async with (
        AsyncConnectionPool(dsn, min_size=size, max_size=size, open=False, configure=_commit_each) as pool,
        app.open_async(pool),
    ):
        yield


async def _prepare(dsn: str) -> None:
    async with _opened(dsn, 1):
        await app.schema_manager.apply_schema_async()


async def _fill(dsn: str, count: int) -> None:
    async with _opened(dsn, 1):
        for batch in payloads(count, _FILL_BATCH):
            await callback.batch_defer_async(*({"body": payload} for payload in batch))


async def _work(dsn: str, url: str, _count: int | None) -> None:
    await _deliver(dsn, url, workers_count=_WORKERS, at_once=_AT_ONCE)


async def _trickle(dsn: str, url: str) -> None:
    """One worker: each job that comes wakes all there are."""
    await _deliver(dsn, url, workers_count=1, at_once=_WORKERS * _AT_ONCE)


async def _deliver(dsn: str, url: str, *, workers_count: int, at_once: int) -> None:
    stop = stop_by_sigterm()
    async with posting(url, workers_count * at_once) as _Sender.post, _opened(dsn, _CONNECTIONS):
        # Done jobs are kept, as is its default; deleting them is faster by less than what two runs differ.
        workers = [
            asyncio.create_task(
                app.run_worker_async(name=f"worker-{number}", concurrency=at_once, install_signal_handlers=False)
            )
            for number in range(workers_count)
        ]
        # A worker that ends by itself was stopped by an error that it has logged.
        await asyncio.wait([asyncio.create_task(stop.wait()), *workers], return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            raise RuntimeError("a worker of Procrastinate ended by itself")
        # A worker that is cancelled finishes its jobs first.
        for worker in workers:
            worker.cancel()
        await asyncio.wait(workers)


async def _enqueue(dsn: str, rate: float, seconds: float, seed: int) -> None:
    async with _opened(dsn, PRODUCER_CONNECTIONS):
        await enqueue_on_schedule(lambda payload: callback.defer_async(body=payload), rate, seconds, seed)


if __name__ == "__main__":
    main(Peer(prepare=_prepare, fill=_fill, work=_work, enqueue=_enqueue, trickle=_trickle))
