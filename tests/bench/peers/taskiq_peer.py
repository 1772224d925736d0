"""taskiq on Redis streams: reads in batches, acknowledges each job with its own command."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from common import PRODUCER_CONNECTIONS, Peer, Post, enqueue_on_schedule, main, payloads, posting, stop_by_sigterm
from taskiq import AsyncTaskiqDecoratedTask
from taskiq.acks import AcknowledgeType
from taskiq.receiver import Receiver
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

_AT_ONCE = 64
"""128 is not faster: the limit is the Python work per job."""
_PREFETCH = 64
"""Prefetched jobs; 0 and 500 are not faster."""
_CONNECTIONS = 64
"""Concurrent acknowledgements; 16 are not faster."""


class _Sender:
    """The session for all jobs: a task is a module function."""

    post: Post


async def callback(body: str) -> None:
    """One job. The payload is text, so that every attempt sends the same bytes."""
    await _Sender.post(body.encode())


def _broker(store: str, connections: int) -> tuple[RedisStreamBroker, AsyncTaskiqDecoratedTask[[str], None]]:
    broker = RedisStreamBroker(store, max_connection_pool_size=connections)
    broker.serializer = ORJSONSerializer()
    return broker, broker.register_task(callback, task_name="callback")


async def _prepare(store: str) -> None:
    """Create the consumer group, which receives jobs enqueued from now on."""
    broker, _ = _broker(store, PRODUCER_CONNECTIONS)
    await broker.startup()
    await broker.shutdown()


async def _fill(store: str, count: int) -> None:
    """Enqueue concurrently, because taskiq has no bulk call."""
    broker, task = _broker(store, _CONNECTIONS)
    for batch in payloads(count, _CONNECTIONS):
        await asyncio.gather(*(task.kiq(payload) for payload in batch))
    await broker.shutdown()


async def _work(store: str, url: str, _count: int | None) -> None:
    """One worker process of `taskiq worker`, without its supervisor process."""
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
                # Acknowledge after the job (at least once); there is no result to save.
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
