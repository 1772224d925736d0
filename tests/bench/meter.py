"""Rate of a worker: requests counted by nginx between a tenth and nine tenths of the work."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.bench.cpu_clock import CpuClock, own_s
from tests.bench.receiver import Receiver

_FROM, _TO = 0.1, 0.9
"""The measured part of the work, without the start and the last requests."""
_POLL_S = 0.05
_WEIGH_EVERY_S = 0.5
_BEGIN_TIMEOUT_S = 60.0
"""Time limit from the start to a tenth of the work."""
_RATE_LEAST = 50.0
"""Slower than every contender; sets the time limit of a round."""


class BrokenRoundError(Exception):
    """The round is invalid; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The measured processes. `is_alive` and `output` belong to the worker."""

    workers: tuple[int, ...]
    store: tuple[int, ...]
    is_alive: Callable[[], bool]
    output: Callable[[], str]
    # Bytes of WAL written so far; None without WAL.
    wal_bytes: Callable[[], Awaitable[int]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The result of one round of one contender."""

    rate: float
    worker_s: float
    store_s: float
    wal_bytes: float
    # Every half second after the first tenth.
    memory_mb: tuple[float, ...]
    # The cores in use by the worker, its store and nginx.
    cores: float = 0.0
    others_cores: float
    # From the worker's start to nine tenths of the work.
    requests: int
    connections: int
    # Our daemon's metrics, each summed over its labels.
    metrics: Mapping[str, float] = field(default_factory=dict)

    def line(self) -> str:
        """`CPU` is seconds per 1,000 requests."""
        return (
            f"{self.rate:8.0f}/s  CPU worker {self.worker_s:.3f} store {self.store_s:.3f}"
            f"  WAL {self.wal_bytes:6.0f} B  memory {max(self.memory_mb):4.0f} MB  others {self.others_cores:.2f} cores"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mark:
    at_s: float
    requests: int
    connections: int
    wal_bytes: int


class Meter:
    """Counts nginx's answers since start(), without the requests for the counter."""

    def __init__(self, receiver: Receiver, session: aiohttp.ClientSession) -> None:
        self._receiver = receiver
        self._session = session
        self._asked = 0
        self._memory_mb: list[float] = []
        self._weighed_at_s = 0.0

    async def start(self) -> None:
        """Reset the counters; call it before the worker starts."""
        before = await self._receiver.counts(self._session)
        self._before, self._asked = before, 0

    async def measure(self, total: int, crew: Crew) -> Reading:
        """The worker's rate after nine tenths of `total`.

        Raises BrokenRoundError if it stops before.
        """
        start = await self._reached(round(total * _FROM), crew, within_s=_BEGIN_TIMEOUT_S + total * _FROM / _RATE_LEAST)
        clock = CpuClock(workers=crew.workers, store=crew.store, receiver=[self._receiver.pid])
        began_own_s = own_s()
        self._memory_mb = []
        end = await self._reached(round(total * _TO), crew, within_s=total / _RATE_LEAST)
        cores = clock.cores()
        rate = (end.requests - start.requests) / (end.at_s - start.at_s)
        # This process is not one of the others.
        own_cores = (own_s() - began_own_s) / (end.at_s - start.at_s)
        return Reading(
            rate=rate,
            worker_s=cores.get("workers", 0.0) / rate * 1000,
            store_s=cores.get("store", 0.0) / rate * 1000,
            wal_bytes=(end.wal_bytes - start.wal_bytes) / (end.requests - start.requests),
            memory_mb=(*self._memory_mb, memory_mb(*crew.workers)),
            cores=sum(cores.get(role, 0.0) for role in ("workers", "store", "receiver")),
            others_cores=max(0.0, cores.get("others", 0.0) - own_cores),
            requests=end.requests,
            connections=end.connections,
        )

    async def _reached(self, requests: int, crew: Crew, *, within_s: float) -> _Mark:
        give_up_at_s = time.monotonic() + within_s
        while True:
            counts = await self._receiver.counts(self._session)
            at_s = time.monotonic()
            self._asked += 1
            self._weigh(at_s, crew)
            answered = counts.requests - self._before.requests - self._asked
            if answered >= requests:
                return _Mark(
                    at_s=at_s,
                    requests=answered,
                    connections=counts.connections - self._before.connections,
                    wal_bytes=await crew.wal_bytes() if crew.wal_bytes else 0,
                )
            if not crew.is_alive() or at_s > give_up_at_s:
                raise BrokenRoundError(f"nginx counted {answered} requests instead of {requests}; {crew.output()}")
            await asyncio.sleep(_POLL_S)

    def _weigh(self, at_s: float, crew: Crew) -> None:
        if at_s >= self._weighed_at_s + _WEIGH_EVERY_S:
            self._weighed_at_s = at_s
            self._memory_mb.append(memory_mb(*crew.workers))


def memory_mb(*pids: int) -> float:
    """Largest resident memory of these processes in 10^6 bytes; 0 without /proc (proc(5))."""
    sizes = [0.0]
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        sizes += [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:")]
    return max(sizes)
