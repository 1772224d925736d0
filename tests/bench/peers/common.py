"""Shared by all peers: commands, payload, POST and schedule. Imports nothing of ours.

    prepare STORE                       the schema is installed
    fill STORE COUNT                    COUNT jobs are enqueued in bulk
    work STORE URL [COUNT]              POST jobs to URL until SIGTERM, then exit with 0
    trickle STORE URL                   as work, with the settings for single jobs
    enqueue STORE RATE SECONDS SEED     one commit for each job; prints one line of JSON

STORE is a Postgres DSN or a Redis URL.
"""

import asyncio
import gc
import json
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import uvloop

Enqueue = Callable[[str], Awaitable[object]]
"""Returns after the job with this payload is committed."""
Post = Callable[[bytes], Awaitable[None]]
"""Returns after an answer with status 200. Raises RuntimeError for any other answer."""

PRODUCER_CONNECTIONS = 4
"""As in tests/bench/producer.py."""
_WARM_UP_EACH = 8
"""Jobs per connection before the schedule: psycopg prepares a statement at its sixth execution."""
_SPREAD = 0.9
"""As in tests/bench/producer.py."""
_BODY = (
    '{"method":"BET_MAKE","timestamp":"2026-03-19T14:30:00.000Z","request_id":"%s","operator_id":"op_bench",'
    '"params":{"player_id":"p-1","currency":"EUR","amount":500,"bet_id":"%s",'
    '"bet":{"market_id":"m-7","outcome":"yes","odds":1.85,"shares":10,"price":0.54},"note":"%s"}}'
)
_BODY_BYTES = 600
_NOTE = "x" * (_BODY_BYTES - len(_BODY % (uuid.UUID(int=0), uuid.UUID(int=0), "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The peer's own functions; without a count `work` runs until SIGTERM."""

    prepare: Callable[[str], Awaitable[None]]
    fill: Callable[[str, int], Awaitable[None]]
    work: Callable[[str, str, int | None], Awaitable[None]]
    enqueue: Callable[[str, float, float, int], Awaitable[None]]
    trickle: Callable[[str, str], Awaitable[None]] | None = None


def main(peer: Peer) -> None:
    """Run the command of the command line on uvloop."""
    match sys.argv[1:]:
        case ["prepare", store]:
            uvloop.run(_awaited(peer.prepare(store)))
        case ["fill", store, count]:
            uvloop.run(_awaited(peer.fill(store, int(count))))
        case ["work", store, url, *count]:
            uvloop.run(_awaited(peer.work(store, url, int(count[0]) if count else None)))
        case ["trickle", store, url]:
            uvloop.run(_awaited(peer.trickle(store, url) if peer.trickle else peer.work(store, url, None)))
        case ["enqueue", store, rate, seconds, seed]:
            # As in our producer: garbage collection would disturb the measurement.
            gc.disable()
            uvloop.run(_awaited(peer.enqueue(store, float(rate), float(seconds), int(seed))))
        case _:
            sys.exit(__doc__)


async def _awaited(command: Awaitable[None]) -> None:
    await command


def callback() -> tuple[str, str]:
    """A new request_id and its payload of 600 bytes: a bet placement as in PROTOCOL.md."""
    request_id = str(uuid.uuid4())
    return request_id, _BODY % (request_id, uuid.uuid4(), _NOTE)


def payloads(count: int, batch: int) -> Iterator[list[str]]:
    """`count` new payloads in batches."""
    for first in range(0, count, batch):
        yield [callback()[1] for _ in range(min(batch, count - first))]


@asynccontextmanager
async def posting(url: str, at_once: int) -> AsyncIterator[Post]:
    """A session with at most `at_once` kept-alive connections."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=at_once),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Content-Type": "application/json"},
    ) as session:

        async def post(payload: bytes) -> None:
            async with session.post(url, data=payload) as response:
                await response.read()
                if response.status != 200:
                    raise RuntimeError(f"{url} answered {response.status}; the job is not done")

        yield post


def stop_by_sigterm() -> asyncio.Event:
    """An event that is set by SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


async def enqueue_on_schedule(enqueue: Enqueue, rate: float, seconds: float, seed: int) -> None:
    """Enqueue each job at its scheduled time and print the line.

    A row is [request_id, scheduled_s, began_s, committed_s] on the monotonic clock. Warm-up jobs
    have no row.
    """
    for _ in range(_WARM_UP_EACH):
        await asyncio.gather(*(enqueue(callback()[1]) for _ in range(PRODUCER_CONNECTIONS)))
    chance = random.Random(seed)
    start_s = time.monotonic() + 0.1

    async def timed(scheduled_s: float) -> tuple[str, float, float, float]:
        request_id, payload = callback()
        began_s = time.monotonic()
        await enqueue(payload)
        return request_id, scheduled_s, began_s, time.monotonic()

    async with asyncio.TaskGroup() as arrivals:
        enqueued = []
        for number in range(round(rate * seconds)):
            scheduled_s = start_s + (number + 0.5 + _SPREAD * (chance.random() - 0.5)) / rate
            await asyncio.sleep(scheduled_s - time.monotonic())
            enqueued.append(arrivals.create_task(timed(scheduled_s)))
    sys.stdout.write(json.dumps([task.result() for task in enqueued]) + "\n")
