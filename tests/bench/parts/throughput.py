"""`throughput`: our daemon and its peers on the same work, with their best settings."""

import asyncio
import math

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.contenders import Contender, OnPostgres, OnRedis, Ours, PeerMissingError, Scripted
from tests.bench.findings import Figure, Findings
from tests.bench.peers import PEERS, PeersUnavailableError, versions
from tests.bench.peers import environment as environment_of
from tests.bench.rounds import Rounds, in_turn, middle

JOBS = {"bare": 80_000, "pgqueuer": 30_000, "oban": 12_000, "taskiq": 12_000, "procrastinate": 4_000}
"""Jobs per round: five to ten seconds of work."""
AT_LEAST = {"bare": 0.38, "pgqueuer": 1.2, "oban": 2.0, "taskiq": 2.5, "procrastinate": 5.0}
"""Required ratio of ours / peer."""
_WAL_AT_MOST = 2600.0
"""Limit in bytes for a callback."""
_KINDS = {"none": Scripted, "postgres": OnPostgres, "redis": OnRedis}


async def measure(environment: BenchEnvironment) -> Findings:
    findings = Findings(part="throughput", title="callbacks a second between a tenth and nine tenths of the work")
    contenders: list[Contender] = [Ours(environment), *await peers(environment, findings, *JOBS)]
    taking_part: dict[str, Contender] = {}
    for contender in contenders:
        try:
            count = await contender.prepare()
        except PeerMissingError as missing:
            _note(environment, findings, str(missing))
        else:
            taking_part[contender.name] = contender
            environment.say(f"{contender.name}: {count:,} requests a round")
    rounds = await in_turn(
        environment, {name: one.measure for name, one in taking_part.items()}, base="ours", is_dividend=True
    )
    _tell(findings, rounds)
    return findings


async def peers(environment: BenchEnvironment, findings: Findings, *names: str) -> list[Scripted]:
    """The peers with these names, and notes about versions and missing peers."""
    found: list[Scripted] = []
    for peer in (peer for peer in PEERS if peer.name in names):
        try:
            python = await asyncio.to_thread(environment_of, peer)
        except PeersUnavailableError as unavailable:
            _note(environment, findings, f"{peer.name} is left out: {unavailable}")
        else:
            found.append(_KINDS[peer.store](environment, peer, python, environment.plan.scaled(JOBS[peer.name])))
    if found:
        of_all = await asyncio.to_thread(versions)
        wanted = {word for peer in PEERS if peer.name in names for word in (*peer.packages, f"Python for {peer.name}")}
        _note(environment, findings, ", ".join(f"{name} {of_all[name]}" for name in of_all if name in wanted))
    return found


def _note(environment: BenchEnvironment, findings: Findings, note: str) -> None:
    findings.notes.append(note)
    environment.say(note)


def _tell(findings: Findings, rounds: Rounds) -> None:
    findings.rates += rounds.rows()
    for name, limit in AT_LEAST.items():
        if name in rounds.readings:
            findings.figures.append(rounds.ratio("ours", name, at_least=limit))
        else:
            findings.figures.append(Figure(name=f"ours / {name}", values=(), at_least=limit))
    wal_bytes = rounds.values("ours", lambda reading: reading.wal_bytes)
    findings.figures.append(Figure(name="ours: WAL", values=wal_bytes, unit="bytes each", at_most=_WAL_AT_MOST))
    findings.notes.extend(rounds.all_notes)
    findings.bars["rates"] = [
        {"name": name, "median": middle(rounds.rates(name)), "low": figure.low, "high": figure.high}
        for name in rounds.readings
        if not math.isnan((figure := Figure(name=name, values=rounds.rates(name))).low)
    ]
