"""Latency of callbacks: an open schedule of requests, and their arrivals at the sink."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.figures import percentile
from tests.bench.findings import Figure
from tests.bench.json_lines import JsonLinesProcess
from tests.bench.meter import BrokenRoundError

RATE = 50.0
"""Callbacks per second."""
WARM_UP_S = 3.0
SEGMENT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment of one side: a latency per request, infinite if it never arrived."""

    latencies_ms: tuple[float, ...]
    others_cores: float

    def at(self, share: float) -> float:
        return percentile(self.latencies_ms, share)

    def line(self) -> str:
        p50, p95, p99, most = (self.at(share) for share in (0.5, 0.95, 0.99, 1.0))
        return (
            f"{len(self.latencies_ms):5}  p50 {p50:6.2f}  p95 {p95:6.2f}  p99 {p99:6.2f}  max {most:7.2f} ms"
            f"  others {self.others_cores:.2f} cores"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The segments of one side, round by round."""

    name: str
    segments: Sequence[Segment]

    def figure(self, share: float, **limits: float) -> Figure:
        return Figure(
            name=f"{self.name}: {_name_of(share)}",
            values=tuple(segment.at(share) for segment in self.segments),
            unit="ms",
            **limits,
        )

    def pooled(self, share: float) -> float:
        """Percentile over all rounds, because one round has too few requests for a p99."""
        return percentile((ms for segment in self.segments for ms in segment.latencies_ms), share)

    def pooled_figure(self, share: float, **limits: float) -> Figure:
        return Figure(
            name=f"{self.name}: {_name_of(share)} of all rounds", values=(self.pooled(share),), unit="ms", **limits
        )

    @property
    def bar(self) -> dict[str, Any]:
        return {"name": self.name, "p50": self.pooled(0.5), "p99": self.pooled(0.99)}


class LatencyProbe:
    """The sink and the duration of a segment."""

    def __init__(self, environment: BenchEnvironment, sink: JsonLinesProcess) -> None:
        self._environment = environment
        self.sink = sink

    @property
    def seconds(self) -> float:
        """Number of requests in a segment."""
        return WARM_UP_S + self._segment_s

    @property
    def _segment_s(self) -> float:
        return max(1.0, SEGMENT_S * self._environment.plan.scale)

    async def open(self, *, delay_s: float = 0.0) -> str:
        """Open a new operator that answers after this delay; returns its address."""
        port = await self.sink.ask(do="open", manner="answer", delay_s=delay_s)
        return f"http://127.0.0.1:{port}/predictu"

    def counted(self, rows: list[list[Any]]) -> list[list[Any]]:
        """The requests of a schedule after the warm-up."""
        return rows[round(RATE * WARM_UP_S) :]

    async def forget(self) -> None:
        await self.sink.ask(do="forget")

    async def arrivals_ms(self, enqueued: list[list[Any]]) -> tuple[float, ...]:
        """Latency from commit to first byte. Raises BrokenRoundError if no request arrived."""
        rows = self.counted(enqueued)
        arrived_at_s = await self.sink.times("arrivals", [row[0] for row in rows])
        if min(arrived_at_s) == inf:
            raise BrokenRoundError("nothing arrived")
        return tuple((at_s - row[3]) * 1000 for row, at_s in zip(rows, arrived_at_s, strict=True))

    def clock(self, *pids: int) -> Callable[[], float]:
        """As BenchEnvironment.clock, with the sink as one of our processes."""
        return self._environment.clock(*pids, self.sink.pid)


MeasureSegment = Callable[[int], Awaitable[Segment]]


async def measure_in_turn(
    environment: BenchEnvironment, sides: Mapping[str, MeasureSegment]
) -> tuple[dict[str, Side], list[str]]:
    """Measure and print each side in each round; returns series and notes."""
    segments: dict[str, list[Segment]] = {name: [] for name in sides}
    notes = []
    width = max(map(len, sides))
    for number in range(1, environment.plan.rounds + 1):
        for name, measure in sides.items():
            try:
                segment = await measure(environment.plan.seed + number)
            except BrokenRoundError as broken:
                notes.append(f"BROKEN: round {number} of {name}: {broken}")
                segment = Segment(latencies_ms=(inf,), others_cores=0.0)
            segments[name].append(segment)
            environment.say(f"{number:3}  {name:{width}} {segment.line()}")
    return {name: Side(name=name, segments=measured) for name, measured in segments.items()}, notes


def _name_of(share: float) -> str:
    return "median" if share == 0.5 else f"p{share * 100:g}"
