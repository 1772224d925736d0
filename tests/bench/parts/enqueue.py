"""`enqueue`: 32 concurrent producers, with and without the NOTIFY of enqueue_callback().

Two pairs with a real daemon that listens. In the first it delivers at full speed and shares the CPU
with the producers; in the second it is rate limited and nearly idle.
"""

import asyncio
import math
import re
import shutil
from pathlib import Path

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.bench_environment import EMPTY, BenchEnvironment
from tests.bench.findings import Figure, Findings, disturbed, ratios, shown
from tests.bench.meter import BrokenRoundError
from tests.bench.workload import OPERATORS

_AT_LEAST = 0.9
_PRODUCERS = 32
"""Required ratio."""
_SECONDS = 6.0
_GRACE_S = 30.0
_SCRIPT = f"""\
\\set number random(1, 1000000000)
select predictu_dispatch.enqueue_callback('op_work_' || (:number::bigint % {len(OPERATORS)}), 'BALANCE',
    jsonb_build_object('player_id', 'p-' || :number::bigint, 'currency', 'EUR'));
"""
_SILENCE = r"""
do $$
declare
    teller record;
    enqueue oid := (select oid from pg_proc
                     where pronamespace = 'predictu_dispatch'::regnamespace and proname = 'enqueue_callback');
begin
    for teller in
        select t.tgname from pg_trigger t join pg_proc p on p.oid = t.tgfoid
         where t.tgrelid = 'predictu_dispatch.callback'::regclass and p.prosrc like '%predictu\_dispatch\_due%'
    loop
        execute format('drop trigger %I on predictu_dispatch.callback', teller.tgname);
    end loop;
    execute regexp_replace(pg_get_functiondef(enqueue), 'perform predictu_dispatch\.notify\([^;]*\);', 'null;', 'g');
end $$
"""
_STILL_TELLS = """
    select exists (select from pg_trigger t join pg_proc p on p.oid = t.tgfoid
                    where t.tgrelid = 'predictu_dispatch.callback'::regclass and t.tgtype & 4 <> 0
                      and p.prosrc like '%predictu\\_dispatch.notify(%')
        or exists (select from pg_proc p
                    where p.pronamespace = 'predictu_dispatch'::regnamespace and p.proname = 'enqueue_callback'
                      and p.prosrc like '%predictu\\_dispatch.notify(%')
"""
"""Checks insert triggers only: the update triggers notify the outcome when a daemon settles."""


async def measure(environment: BenchEnvironment) -> Findings:
    findings = Findings(part="enqueue", title=f"{_PRODUCERS} connections enqueueing BALANCE at once, commits a second")
    script = environment.folder / "enqueue.sql"
    script.write_text(_SCRIPT, encoding="utf-8")
    url = environment.receiver.url
    pairs = {
        "daemon delivers": environment.files("work", url),
        # One request per second and operator keeps the daemon nearly idle.
        "daemon all but idle": environment.files("enqueue-idle", url, limits={"max_requests_per_s": 1}),
    }
    silent = await environment.clone(EMPTY, "enqueue_silent")
    async with environment.owner(silent) as owner:
        await owner.execute(_SILENCE)
        if await owner.fetchval(_STILL_TELLS):
            raise RuntimeError("enqueueing still notifies; parts/enqueue.py must follow the schema")
    for name, files in pairs.items():
        environment.say(f"\nenqueue: {name}")
        rates = await _in_turn(environment, findings, files, script, {"NOTIFY": EMPTY, "no NOTIFY": silent})
        findings.figures += [
            *(Figure(name=f"{name}, {side}", values=values, unit="commits/s") for side, values in rates.items()),
            Figure(name=f"{name}, ratio", values=ratios(rates["NOTIFY"], rates["no NOTIFY"]), at_least=_AT_LEAST),
        ]
    return findings


async def _in_turn(
    environment: BenchEnvironment, findings: Findings, files: Path, script: Path, sides: dict[str, str]
) -> dict[str, tuple[float, ...]]:
    """Commits per second by side; NaN for a broken round."""
    rates: dict[str, list[float]] = {side: [] for side in sides}
    others = []
    for number in range(1, environment.plan.rounds + 1):
        for side, template in sides.items():
            async with environment.copy(template, "enqueue_round") as database:
                try:
                    rate, delivered, others_cores = await _segment(environment, files, script, database)
                except BrokenRoundError as broken:
                    rate, delivered, others_cores = math.nan, 0, 0.0
                    findings.notes.append(f"BROKEN: round {number} of {side}: {broken}")
            rates[side].append(rate)
            others.append(others_cores)
            environment.say(f"{number:3}  {side:9} {shown(rate)} commits/s, {delivered:,} delivered meanwhile")
    findings.notes += disturbed(others)
    return {side: tuple(values) for side, values in rates.items()}


async def _segment(environment: BenchEnvironment, files: Path, script: Path, database: str) -> tuple[float, int, float]:
    """Commits per second, callbacks delivered meanwhile, and cores used by other processes."""
    async with environment.daemons(files, database) as (daemon,), environment.owner(database) as owner:
        await daemon.ready()
        process = await asyncio.create_subprocess_exec(
            *(
                pgbench(environment.postgres),
                "--no-vacuum",
                "--protocol=prepared",
                "--jobs=1",
                f"--client={_PRODUCERS}",
            ),
            *(f"--time={max(1, round(_SECONDS * environment.plan.scale))}", f"--file={script}"),
            environment.postgres.dsn(database, "bench_producer"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        others = environment.clock(daemon.process.pid)
        try:
            printed, _ = await asyncio.wait_for(process.communicate(), _SECONDS + _GRACE_S)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = printed.decode(errors="replace")
        found = re.search(r"^tps = ([\d.]+)", text, re.MULTILINE)
        failed = re.search(r"number of failed transactions: ([1-9]\d*)", text)
        if process.returncode != 0 or found is None or failed:
            raise BrokenRoundError(text[-1000:])
        delivered = await owner.fetchval("select count(*) from predictu_dispatch.callback where state = 'delivered'")
        return float(found[1]), int(delivered), others()


def pgbench(postgres: EmbeddedPostgres) -> str:
    """The path of pgbench. Raises RuntimeError if it is not installed."""
    beside = postgres._binaries / "pgbench"
    found = str(beside) if beside.exists() else shutil.which("pgbench")
    if found is None:
        raise RuntimeError("the part `enqueue` needs pgbench; on Debian: apt-get install postgresql-contrib")
    return found
