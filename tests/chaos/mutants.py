"""Breaks one protection at a time in a copy of the tree, and reports whether a chaos run finds it.

    .venv/bin/python -m tests.chaos.mutants --seed 1

The first run is the control, an unbroken copy, in which every check must hold.
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
_CALLBACK = "sql/migrations/0002_moves_within_a_page.sql"
_SETTLE = "sql/functions/dispatch/settle.sql"
_SETTLE_ONE = "sql/functions/dispatch/settle_one.sql"
_ENQUEUE = "sql/functions/producers/enqueue_callback.sql"
_ADVANCE = "sql/functions/bets/advance_bets.sql"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """Replaces `old` by `new` in `file`, and likewise a second defence behind it."""

    name: str
    file: str
    old: str
    new: str
    second_defence: tuple[tuple[str, str, str], ...] = ()

    def changes(self) -> tuple[tuple[str, str, str], ...]:
        """File, old text and new text of each change; none for the control."""
        return ((self.file, self.old, self.new), *self.second_defence) if self.old else ()


MUTANTS = (
    Mutant(
        name="settle has no fence: any report settles its callback",
        file=_SETTLE,
        old=" and c.lease_until is not null\n           and c.attempts = r.attempt\n",
        new="\n",
        second_defence=(
            (_SCHEMA, "create unique index attempt_decided", "create index attempt_decided"),
            (_SCHEMA, "end)) nulls not distinct;", "end));"),
            (_SETTLE_ONE, "\n       and c.lease_until is not null and c.attempts = settle_one.attempt\n", "\n"),
        ),
    ),
    Mutant(
        name="an unanswered debit has effect none",
        file="predictu_dispatch/core/verdict.py",
        old='return _retry(exchange.reason or "unanswered")',
        new='return Judgement(verdict=Verdict.RETRY, reason=exchange.reason or "unanswered")',
    ),
    Mutant(
        name="a sent request is recorded as not sent",
        file="predictu_dispatch/edge/http/transport.py",
        old="if reason is None else Evidence.UNANSWERED",
        new="if reason is None else Evidence.NOT_SENT",
    ),
    Mutant(
        name="each attempt has another body",
        file="predictu_dispatch/core/callback.py",
        old="{callback.created_at.isoformat(",
        new="{callback.leased_at.isoformat(",
    ),
    Mutant(
        name="a duplicate is a rejection",
        file="predictu_dispatch/core/answer.py",
        old='"success": frozenset({"OK", "DUPLICATE", "DUPLICATE_TRANSACTION"}),\n    "rejected": frozenset({',
        new='"success": frozenset({"OK"}),\n    "rejected": frozenset({"DUPLICATE", "DUPLICATE_TRANSACTION", ',
    ),
    Mutant(
        name="a rejection is a success",
        file="predictu_dispatch/core/verdict.py",
        old="if status in statuses.success:",
        new="if status in statuses.success | statuses.rejected:",
    ),
    Mutant(
        name="a bet of unknown effect becomes void without a rollback",
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
        second_defence=((_CALLBACK, "create unique index callback_of_bet", "create index callback_of_bet"),),
    ),
    Mutant(
        name="a reaped attempt has no audit row",
        file=_SETTLE,
        old="where k.is_decisive or not k.reaped and k.leased_at is not null and not exists (",
        new="where not k.reaped and k.leased_at is not null and not exists (",
    ),
    Mutant(
        name="expired leases are not reaped",
        file="predictu_dispatch/flow/reaper.py",
        old="if lease[0].lease_s <= steady_for_s]",
        new="if lease[0].lease_s <= -1.0]",
    ),
    Mutant(
        name="a credit is exhausted after three attempts",
        file="predictu_dispatch/core/lifecycle.py",
        old="if tries >= attempts_max and was_sent:",
        new="if tries >= min(attempts_max, 3) and was_sent:",
    ),
    Mutant(
        name="the sealer jumps over transactions that commit late",
        file="sql/functions/audit/audit_unsealed.sql",
        old="where pg_visible_in_snapshot(x, current_snapshot));",
        new="where false);",
    ),
    Mutant(
        name="a stale sealer appends to a log that has grown",
        file="sql/functions/audit/audit_append.sql",
        old="where p.revision = expected\n",
        new="where p.revision is not null\n",
        second_defence=(
            (
                "sql/functions/guards/refuse_log_change.sql",
                "and (new.size > old.size or new.size = old.size and new.root = old.root)",
                "",
            ),
        ),
    ),
)


@click.command()
@click.option("--seed", default=1, show_default=True)
@click.option("--minutes", default=0.7, show_default=True, type=click.FloatRange(0.2, 60))
@click.option("--only", multiple=True, help="Only mutants whose name contains this. Default: all.")
def main(*, seed: int, minutes: float, only: tuple[str, ...]) -> None:
    """Exit with 0 if the control holds and every mutant is found."""
    control = Mutant(name="control", file="pyproject.toml", old="", new="")
    chosen = [mutant for mutant in MUTANTS if not only or any(word in mutant.name for word in only)]
    as_expected = 0
    click.echo(f"| mutant | seed {seed}, {minutes * 60:.0f} s |\n|---|---|")
    for mutant in (control, *chosen):
        began_s = time.monotonic()
        fault = _first_fault(mutant, seed=seed, minutes=minutes)
        as_expected += (fault is None) == (mutant is control)
        found = f"found after {time.monotonic() - began_s:.0f} s: {fault}" if fault else "every check holds"
        click.echo(f"| {mutant.name} | {found} |")
    sys.exit(0 if as_expected == len(chosen) + 1 else 1)


def _first_fault(mutant: Mutant, *, seed: int, minutes: float) -> str | None:
    """The first fault of a run on the broken copy; None if every check holds."""
    with tempfile.TemporaryDirectory(prefix="predictu-mutant-") as name:
        tree = Path(name)
        # Postgres may run as another user, which must be able to enter.
        tree.chmod(0o755)
        for part in _COPIED:
            if (_ROOT / part).is_dir():
                shutil.copytree(_ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(_ROOT / part, tree / part)
        for name_in_tree, old, new in mutant.changes():
            file = tree / name_in_tree
            text = file.read_text(encoding="utf-8")
            if text.count(old) != 1:
                raise click.ClickException(f"{mutant.name}: {old!r} occurs {text.count(old)} times in {file}")
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
            # Our own functions and guards raise codes that asyncpg does not know.
            return f"the database refused a valid request: {refused[1]}"
        if "Traceback" in played.stderr:
            # A crash of the chaos run itself is no finding.
            raise click.ClickException(f"{mutant.name}: the chaos run crashed:\n{played.stderr[-2000:]}")
        return next(iter(played.stderr.splitlines()), f"exit code {played.returncode}")


if __name__ == "__main__":
    main()
