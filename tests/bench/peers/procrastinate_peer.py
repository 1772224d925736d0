"""Procrastinate on psycopg: one statement claims each job, another one finishes it."""

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
"""Workers in one process; each claims one job at a time. A third faster than 1; 16 are not
faster."""
_AT_ONCE = 8
"""Jobs per worker."""
_CONNECTIONS = 16
"""Per worker one that claims and one that records; a third one for listening is separate."""

# Procrastinate warns about task names in a main module; our task has an explicit name.
logging.getLogger("procrastinate").setLevel(logging.ERROR)
app = App(connector=PsycopgConnector())


class _Sender:
    """The session for all jobs: a task is a module function."""

    post: Post


@app.task(name="callback")
async def callback(body: str) -> None:
    """One job. The payload is text, so that every attempt sends the same bytes."""
    await _Sender.post(body.encode())


async def _commit_each(connection: AsyncConnection) -> None:
    """Autocommit: a fifth faster and as durable, without the round trips of BEGIN and COMMIT."""
    await connection.set_autocommit(True)


@asynccontextmanager
async def _opened(dsn: str, size: int) -> AsyncIterator[None]:
    """The app on our own pool; the default pool checks the connection before each statement."""
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
    """One worker: each new job wakes all workers."""
    await _deliver(dsn, url, workers_count=1, at_once=_WORKERS * _AT_ONCE)


async def _deliver(dsn: str, url: str, *, workers_count: int, at_once: int) -> None:
    stop = stop_by_sigterm()
    async with posting(url, workers_count * at_once) as _Sender.post, _opened(dsn, _CONNECTIONS):
        # Keeps finished jobs (the default); deleting them is not measurably faster.
        workers = [
            asyncio.create_task(
                app.run_worker_async(name=f"worker-{number}", concurrency=at_once, install_signal_handlers=False)
            )
            for number in range(workers_count)
        ]
        # A worker ends by itself only after an error, which it has logged.
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
