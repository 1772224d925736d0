"""`memory`: resident memory and its growth with 20 operators at full load."""

from statistics import fmean

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.findings import Figure, Findings, disturbed
from tests.bench.meter import BrokenRoundError
from tests.bench.workload import CALLBACKS_PER_BET

_OPERATORS = tuple(f"op_work_{number}" for number in range(20))
_CALLBACKS, _CALLBACKS_FULL = 100_000, 1_000_000
_AT_MOST_MB = 150.0
"""Limit in MB."""


async def measure(environment: BenchEnvironment) -> Findings:
    callbacks = environment.plan.scaled(_CALLBACKS_FULL if environment.plan.full else _CALLBACKS)
    bets = callbacks // CALLBACKS_PER_BET
    findings = Findings(part="memory", title=f"one daemon, {len(_OPERATORS)} operators, {callbacks:,} callbacks")
    files = environment.files("memory", environment.receiver.url, operators=_OPERATORS)
    known = await environment.clone("ours_empty", "memory_known")
    await environment.introduce(files, known)
    full = await environment.filled("memory_full", bets=bets, template=known, operators=_OPERATORS)
    try:
        reading = await environment.deliver(files, full, bets, operators=_OPERATORS)
    except BrokenRoundError as broken:
        findings.notes.append(f"BROKEN: {broken}")
        sizes: tuple[float, ...] = ()
    else:
        environment.say(reading.line())
        sizes = reading.memory_mb
        environment.say(f"resident, MB: {' '.join(f'{size:.0f}' for size in sizes)}")
        findings.notes += disturbed([reading.others_cores])
    quarter = max(1, len(sizes) // 4)
    growth = (fmean(sizes[-quarter:]) - fmean(sizes[:quarter]),) if sizes else ()
    findings.figures += [
        Figure(name="resident, the most", values=(max(sizes),) if sizes else (), unit="MB", at_most=_AT_MOST_MB),
        Figure(name="growth, first to last quarter", values=growth, unit="MB"),
    ]
    return findings
