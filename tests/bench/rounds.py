"""Run the sides in turns, A B C A B C …, so that changes of the machine affect all of them."""

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.findings import Figure, disturbed, ratios, shown
from tests.bench.meter import BrokenRoundError, Reading

Side = Callable[[], Awaitable[Reading]]


@dataclass(kw_only=True)
class Rounds:
    """Readings by side; None for a broken round."""

    readings: dict[str, list[Reading | None]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def values(self, side: str, of: Callable[[Reading], float]) -> tuple[float, ...]:
        return tuple(math.nan if reading is None else of(reading) for reading in self.readings[side])

    def rates(self, side: str) -> tuple[float, ...]:
        return self.values(side, lambda reading: reading.rate)

    def ratio(self, one: str, other: str, *, at_least: float | None = None) -> Figure:
        return Figure(name=f"{one} / {other}", values=ratios(self.rates(one), self.rates(other)), at_least=at_least)

    def rows(self, names: Mapping[str, str] | None = None) -> list[str]:
        """A row below findings.RATES_HEAD for each side: medians of the complete rounds."""
        return [self._row(side, (names or {}).get(side, side)) for side in self.readings]

    def _row(self, side: str, name: str) -> str:
        rate = Figure(name=side, values=self.rates(side))
        costs = [
            middle(self.values(side, of))
            for of in (
                lambda reading: reading.worker_s,
                lambda reading: reading.store_s,
                lambda reading: reading.wal_bytes,
                lambda reading: max(reading.memory_mb),
            )
        ]
        cells = (name, shown(middle(rate.values)), rate.spread, *(shown(cost) if cost else "" for cost in costs))
        return f"| {' | '.join(cells)} |"

    @property
    def all_notes(self) -> list[str]:
        read = [reading for side in self.readings.values() for reading in side if reading is not None]
        return [*self.notes, *disturbed(reading.others_cores for reading in read)]


async def in_turn(
    environment: BenchEnvironment, sides: Mapping[str, Side], *, base: str, is_dividend: bool = False
) -> Rounds:
    """Run and print each side in each round, with its rate relative to `base`."""
    rounds = Rounds(readings={name: [] for name in sides})
    width = max(map(len, sides))
    for number in range(1, environment.plan.rounds + 1):
        for name, measure in sides.items():
            try:
                reading: Reading | None = await measure()
            except BrokenRoundError as broken:
                reading = None
                rounds.notes.append(f"BROKEN: round {number} of {name}: {broken}")
                environment.say(f"{number:3}  {name:{width}}  BROKEN: {broken}")
            rounds.readings[name].append(reading)
            if reading is not None:
                first = rounds.readings[base][-1]
                ratio = math.nan if first is None else reading.rate / first.rate
                words = f"{base} / this {shown(1 / ratio)}" if is_dividend else f"this / {base} {shown(ratio)}"
                environment.say(f"{number:3}  {name:{width}} {reading.line()}{'' if name == base else '  ' + words}")
    return rounds


def middle(values: tuple[float, ...]) -> float:
    """The median of the complete rounds; NaN if there is none."""
    whole = [value for value in values if not math.isnan(value)]
    return median(whole) if whole else math.nan
