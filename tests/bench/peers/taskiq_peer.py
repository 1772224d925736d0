"""taskiq, on Redis streams: jobs are read in batches; each done one is acknowledged by a command of its own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from common import PRODUCER_CONNECTIONS, Peer, Post, enqueue_on_schedule, main, payloads, posting, stop_by_sigterm
from taskiq import AsyncTaskiqDecoratedTask
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

_AT_ONCE = 64
"""128 is no faster: what limits it is the work in Python for each job, which keeps the process busy."""
_PREFETCH = 64
"""Jobs that were read and wait for a place; 0 and 500 are no faster."""
_CONNECTIONS = 64
"""As many as may acknowledge at once; 16 is no faster."""


class _Sender:
    """What a job posts with: a task is a function of the module."""

    post: Post


async def callback(body: str) -> None:
    """One job; the payload is text, because what is sent must be the same bytes each time."""
    await _Sender.post(body.encode())


def _broker(store: str, connections: int) -> tuple[RedisStreamBroker, AsyncTaskiqDecoratedTask[[str], None]]:
    broker = RedisStreamBroker(store, max_connection_pool_size=connections)
    broker.serializer = ORJSONSerializer()
    return broker, broker.register_task(callback, task_name="callback")


async def _prepare(store: str) -> None:
    """The consumer group is there: it gets what is enqueued from now on."""
    broker, _ = _broker(store, PRODUCER_CONNECTIONS)
    await broker.startup()
    await broker.shutdown()


async def _fill(store: str, count: int) -> None:
    """There is no call for many at once: as many as there are connections, each with its own."""
    broker, task = _broker(store, _CONNECTIONS)
    for batch in payloads(count, _CONNECTIONS):
        await asyncio.gather(*(task.kiq(payload) for payload in batch))
    await broker.shutdown()


async def _work(store: str, url: str, _count: int | None) -> None:
    """What a process of `taskiq worker` does, without the process above it that would start several (2 by default)."""
    stop = stop_by_sigterm()
    broker, _ = _broker(store, _CONNECTIONS)
    broker.is_worker_process = True
    with ThreadPoolExecutor(1) as executor:
        async with posting(url, _AT_ONCE) as _Sender.post:
            receiver = Receiver(
                broker,
                executor,
                validate_params=False,
                max_async_tasks=_AT_ONCE,
                max_prefetch=_PREFETCH,
                # At least once: never before it is done. There is no result to be saved.
                ack_type=AcknowledgeType.WHEN_EXECUTED,
            )
            await receiver.listen(stop)
    await broker.shutdown()


async def _enqueue(store: str, rate: float, seconds: float, seed: int) -> None:
    broker, task = _broker(store, PRODUCER_CONNECTIONS)
    await enqueue_on_schedule(task.kiq, rate, seconds, seed)
    await broker.shutdown()


if __name__ == "__main__":
    main(Peer(prepare=_prepare, fill=_fill, work=_work, enqueue=_enqueue))
