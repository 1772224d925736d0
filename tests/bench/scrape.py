"""Measure how long a scrape of /metrics with 200 operators blocks the daemon's event loop.

.venv/bin/python -m tests.bench.scrape [--operators 200] [--scrapes 20] [--limit-ms 5]

Uses the real HTTP server, event loop and telemetry with every series, and a scraper in another
process. A task asks for a turn every millisecond and records its delay. Exit code 1 if the median
over the scrapes of the longest delay exceeds the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress

import uvloop

from predictu_dispatch.commands.daemon import GARBAGE_THRESHOLD, SWITCH_INTERVAL_S
from predictu_dispatch.core.breaker import Breaker
from predictu_dispatch.core.fleet import FleetFigures, OperatorState
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.verdict import Verdict
from predictu_dispatch.edge.http.server import HttpServer
from predictu_dispatch.edge.telemetry.families import ProcessStats
from predictu_dispatch.edge.telemetry.observer import Telemetry

_BEAT_S = 0.001
_PAUSE_S = 0.4
_COUNTING_S = 0.2
_SCRAPER = """
import sys, time, urllib.request
for _ in range(int(sys.argv[2])):
    began = time.monotonic()
    size = len(urllib.request.urlopen(sys.argv[1]).read())
    print(began, time.monotonic(), size, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def filled(operators: int) -> Telemetry:
    """Telemetry with every series: delivered, retried, exhausted and rejected callbacks."""
    names = [f"op_{n:06}" for n in range(operators)]
    lanes = {(name, lane): 3 for name in names for lane in Lane}
    telemetry = Telemetry(process_stats=lambda: ProcessStats(in_flight=lanes, is_database_up=True, is_ready=True))
    metrics = telemetry._metrics
    for name in names:
        for method in Method:
            for verdict in (Verdict.DELIVERED, Verdict.RETRY):
                metrics.attempts.inc(name, method, verdict)
            for state in (CallbackState.DELIVERED, CallbackState.EXHAUSTED):
                metrics.finished.inc(name, method, state)
        for method in (Method.BET_MAKE, Method.BET_WIN, Method.BET_SELL):
            metrics.attempts.inc(name, method, Verdict.REJECTED)
            metrics.finished.inc(name, method, CallbackState.REJECTED)
        for lane in Lane:
            metrics.attempt_duration.observe(0.1, name, lane)
            metrics.delivery_latency.observe(0.1, name, lane)
        for cause in ("requested", "unknown_effect"):
            metrics.rollbacks.labels(name, cause).inc()
        metrics.connections.labels(name).inc()
        metrics.misconfigured.labels(name).inc()
    telemetry.operators_read(
        [
            OperatorState(
                operator_id=name,
                revision=1,
                breaker=Breaker(ever_succeeded=True),
                circuit_age_s=None,
                ping_request_id=uuid.uuid4(),
                is_paused=False,
                interactive_backoff_s=0.0,
                settlement_backoff_s=0.0,
            )
            for name in names
        ]
    )
    figures = {"callbacks": 7, "unknown_effect": 1, "oldest_due_s": 1.0, "unknown_for_s": 1.0}
    backlog = [
        {"operator_id": name, "lane": lane, "state": state, "rollbacks": 1, "rollback_for_s": 1.0, **figures}
        for name, lane in lanes
        for state in (CallbackState.WAITING, CallbackState.READY, CallbackState.IN_FLIGHT)
    ]
    review = [{"operator_id": name, "review_for_s": 1.0, **figures} for name in names]
    telemetry.figures_read(FleetFigures(backlog=backlog, review=review, age_s=0.0, notification_queue_usage=0.0))
    return telemetry


async def beat(late: list[tuple[float, float]]) -> None:
    """Record (time, seconds of delay caused by this process) of every turn.

    A delay counts only up to the CPU time that this process used in the meantime, because other
    processes can also delay a turn.
    """
    while True:
        asked_s, used_s = time.monotonic() + _BEAT_S, time.process_time()
        await asyncio.sleep(_BEAT_S)
        now_s = time.monotonic()
        late.append((now_s, min(now_s - asked_s, time.process_time() - used_s)))


async def scrape(telemetry: Telemetry, *, scrapes: int) -> list[tuple[float, float, int, float]]:
    """(ms, longest delay during it, bytes, longest delay in the pause after it) of each scrape."""
    server = HttpServer(
        registry=telemetry.registry, refresh=telemetry.gauges.refresh, unready=lambda: None, signing_keys=dict
    )
    [url] = await server.start(("127.0.0.1", 0))
    late: list[tuple[float, float]] = []
    beating = asyncio.create_task(beat(late))
    scraper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SCRAPER, f"{url}/metrics", str(scrapes), str(_PAUSE_S)), stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await asyncio.wait_for(scraper.communicate(), 300)
    finally:
        beating.cancel()
        with suppress(ProcessLookupError):
            scraper.kill()
        server.stop()
    found = []
    for line in output.decode().splitlines():
        began_s, ended_s, size = (float(word) for word in line.split())
        within = [span for at_s, span in late if began_s <= at_s <= ended_s + _BEAT_S]
        after = [span for at_s, span in late if ended_s + _BEAT_S < at_s <= ended_s + _PAUSE_S]
        found.append(((ended_s - began_s) * 1000, max(within) * 1000, int(size), max(after) * 1000))
    return found


async def control(*, times: int) -> list[float]:
    """The longest delay in ms beside a thread that only counts, as a baseline of this machine."""
    late: list[tuple[float, float]] = []
    beating = asyncio.create_task(beat(late))
    found = []
    for _ in range(times):
        late.clear()
        await asyncio.to_thread(_count)
        found.append(max(span for _, span in late) * 1000)
        await asyncio.sleep(_PAUSE_S)
    beating.cancel()
    return found


def _count() -> None:
    until_s, counted = time.thread_time() + _COUNTING_S, 0
    while time.thread_time() < until_s:
        counted += 1


def summary(name: str, figures: Iterable[float], form: Callable[[float], str] = "{:.2f}".format) -> str:
    """A line with the median and the maximum."""
    figures = sorted(figures)
    return f"{name}: median {form(statistics.median(figures))}, worst {form(figures[-1])}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--operators", type=int, default=200)
    arguments.add_argument("--scrapes", type=int, default=20)
    arguments.add_argument("--limit-ms", type=float, default=5.0)
    arguments.add_argument("--turns-s", type=float, default=SWITCH_INTERVAL_S)
    given = arguments.parse_args()
    telemetry = filled(given.operators)
    # As in the command `run`.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    sys.setswitchinterval(given.turns_s)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(scrape(telemetry, scrapes=given.scrapes))
        counting = runner.run(control(times=given.scrapes))
    took, longest, sizes, quiet = zip(*found, strict=True)
    lines = (
        f"{given.operators} operators, {sizes[-1] / 1e6:.2f} MB, {given.scrapes} scrapes, turns of {given.turns_s} s",
        summary("a scrape takes, ms", took),
        summary("longest delay of the loop in it, ms", longest),
        summary("the same in the pause after it, ms", quiet),
        summary("the same beside a thread that only counts, ms", counting),
    )
    sys.stdout.write("\n".join(lines) + "\n")
    if statistics.median(longest) > given.limit_ms:
        disturbed = statistics.median(counting) > given.limit_ms / 2
        sys.exit(
            "DISTURBED: others use the processors, measure again"
            if disturbed
            else f"over the limit of {given.limit_ms:g} ms"
        )


if __name__ == "__main__":
    main()
