"""Breaks one protection at a time in a copy of the tree, and tells whether the chaos harness finds it.

    .venv/bin/python -m tests.chaos.mutants --seed 1

The first run is the control: unbroken, which must hold. A mutant is found by the first fault that the books name.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click

_ROOT = Path(__file__).parents[2]
_COPIED = ("predictu_dispatch", "sql", "tests", "pyproject.toml")
_TIMEOUT_S = 600.0
_SCHEMA = "sql/migrations/0001_schema.sql"
_SETTLE = "sql/functions/dispatch/settle.sql"
_ENQUEUE = "sql/functions/producers/enqueue_callback.sql"
_ADVANCE = "sql/functions/bets/advance_bets.sql"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`old` stands in `file` once, and becomes `new`; so does what stands `behind` it and would hold by itself."""

    name: str
    file: str
    old: str
    new: str
    behind: tuple[tuple[str, str, str], ...] = ()


MUTANTS = (
    Mutant(
        name="the fence is gone: any report settles what it names",
        file=_SETTLE,
        old=" and c.lease_until is not null and c.attempts = r.attempt\n",
        new="\n",
        behind=(
            (_SCHEMA, "create unique index attempt_decided", "create index attempt_decided"),
            (_SCHEMA, "end)) nulls not distinct;", "end));"),
        ),
    ),
    Mutant(
        name="a debit without an answer counts as never made",
        file="predictu_dispatch/core/verdict.py",
        old='return _retry(exchange.reason or "unanswered")',
        new='return Judgement(verdict=Verdict.RETRY, reason=exchange.reason or "unanswered")',
    ),
    Mutant(
        name="what was sent is noted as not sent",
        file="predictu_dispatch/edge/http/transport.py",
        old="        progress.sent = True\n",
        new="",
    ),
    Mutant(
        name="each attempt has a body of its own",
        file="predictu_dispatch/core/callback.py",
        old="{callback.created_at.isoformat(",
        new="{callback.leased_at.isoformat(",
    ),
    Mutant(
        name="a duplicate is a refusal",
        file="predictu_dispatch/core/operator_settings.py",
        old='"success": frozenset({"OK", "DUPLICATE", "DUPLICATE_TRANSACTION"}),\n    "rejected": frozenset({',
        new='"success": frozenset({"OK"}),\n    "rejected": frozenset({"DUPLICATE", "DUPLICATE_TRANSACTION", ',
    ),
    Mutant(
        name="a refusal is a success",
        file="predictu_dispatch/core/verdict.py",
        old="if status in statuses.success:",
        new="if status in statuses.success | statuses.rejected:",
    ),
    Mutant(
        name="a bet of unknown fate is void, and nothing is rolled back",
        file=_ADVANCE,
        old="if ended.effect = 'none' then",
        new="if ended.effect is not null then",
    ),
    Mutant(
        name="a terminal does not wait for its placement",
        file=_ENQUEUE,
        old="state := case bet.state when 'placing' then 'waiting' else 'ready' end;",
        new="state := 'ready';",
    ),
    Mutant(
        name="a bet may have two terminals",
        file=_ENQUEUE,
        old="if bet.state not in ('placing', 'open') or exists (",
        new="if bet.state not in ('placing', 'open', 'closing') or false and exists (",
        behind=((_SCHEMA, "create unique index callback_of_bet", "create index callback_of_bet"),),
    ),
    Mutant(
        name="what a reaper ends is not audited",
        file=_SETTLE,
        old="where d.request_id is not null or not (r.reaped or exists (",
        new="where (d.request_id is not null and not r.reaped) or not (r.reaped or exists (",
    ),
    Mutant(
        name="nobody reaps what a killed daemon held",
        file="predictu_dispatch/flow/reaper.py",
        old="for lease in await self._outbox.expired_leases():",
        new="for lease in (await self._outbox.expired_leases())[:0]:",
    ),
    Mutant(
        name="a credit is given up after three attempts",
        file="predictu_dispatch/core/lifecycle.py",
        old="if tries >= attempts_max and was_sent:",
        new="if tries >= min(attempts_max, 3) and was_sent:",
    ),
)


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--minutes", default=0.7, show_default=True, type=click.FloatRange(0.2, 60))
@click.option("--only", multiple=True, help="Mutants whose name holds this; all if not given.")
def main(*, seed: int, minutes: float, only: tuple[str, ...]) -> None:
    """Exit code 0 where the control held and every mutant was found."""
    control = Mutant(name="control: nothing is broken", file="pyproject.toml", old="", new="")
    chosen = [mutant for mutant in MUTANTS if not only or any(word in mutant.name for word in only)]
    as_expected = 0
    click.echo(f"| mutant | seed {seed}, {minutes * 60:.0f} s |\n|---|---|")
    for mutant in (control, *chosen):
        began_s = time.monotonic()
        fault = _first_fault(mutant, seed=seed, minutes=minutes)
        as_expected += (fault is None) == (mutant is control)
        found = f"found after {time.monotonic() - began_s:.0f} s: {fault}" if fault else "every invariant held"
        click.echo(f"| {mutant.name} | {found} |")
    sys.exit(0 if as_expected == len(chosen) + 1 else 1)


def _first_fault(mutant: Mutant, *, seed: int, minutes: float) -> str | None:
    """What the harness says first of the broken tree; None where it says that all is well."""
    with tempfile.TemporaryDirectory(prefix="predictu-mutant-") as name:
        tree = Path(name)
        # Postgres may run as another user, who reads nothing here but must be able to pass.
        tree.chmod(0o755)
        for part in _COPIED:
            if (_ROOT / part).is_dir():
                shutil.copytree(_ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(_ROOT / part, tree / part)
        for name_in_tree, old, new in ((mutant.file, mutant.old, mutant.new), *mutant.behind) if mutant.old else ():
            file = tree / name_in_tree
            text = file.read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise click.ClickException(f"{mutant.name}: {old!r} stands {text.count(old)} times in {file}")
            file.write_text(text.replace(old, new), encoding="utf-8")
        played = subprocess.run(
            [sys.executable, "-m", "tests.chaos.chaos", "--seed", str(seed), "--minutes", str(minutes), "--quiet"],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if played.returncode == 0:
            return None
        if refused := re.search(r"UnknownPostgresError: (.+)", played.stderr):
            # Only what our own functions and guards raise has a code that asyncpg does not know.
            return f"the database refused what a producer may say: {refused[1]}"
        if "Traceback" in played.stderr:
            # Not what the books say, but no mutant is found by a harness that fell over.
            raise click.ClickException(f"{mutant.name}: the harness fell over:\n{played.stderr[-2000:]}")
        return next(iter(played.stderr.splitlines()), f"exit code {played.returncode}")


if __name__ == "__main__":
    main()
