"""Plants faults of known classes into operators' ledgers, and counts how many of them are found.

    make reconcile
    make reconcile ARGS="--seeds 3 --faults 200"

Each seed reconciles unplanted ledgers, plants, and reconciles again, by the command and by the
naive classifier.
"""

import asyncio
import random
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import click

from predictu_dispatch.core.difference_classes import RULES, DifferenceClass, Kind
from tests.reconciliation.generator import Planter
from tests.reconciliation.history import History, TimeMap, played_history, read_books
from tests.reconciliation.ledger_files import Entry, LedgerWriter, new_dialect, read_wallet, settings_of
from tests.reconciliation.naive_classifier import NaiveClassifier
from tests.reconciliation.naive_lines import read_files
from tests.reconciliation.naive_matching import Period
from tests.reconciliation.planted_ledger import Fault
from tests.reconciliation.reconciled import reconcile
from tests.reconciliation.results import (
    Found,
    Result,
    Subject,
    disagreements,
    identity_faults,
    naive_result,
    sql_result,
)
from tests.reconciliation.score import Score, Tally

SCENES = (
    ("Europe/Malta", 3),
    ("Europe/Malta", 10),
    ("Australia/Lord_Howe", 4),
    ("Australia/Lord_Howe", 10),
    ("Asia/Kolkata", 8),
    ("UTC", 6),
)
"""Zones and months of last year; in the first four, a day of the month has another length."""
_DAYS = 2.6
"""Days to which the history is stretched, from a third of a day before the scene's."""
_AT_ONCE = 3


_UNREADABLE = Found(name="unreadable", disputed=0, amounts=frozenset())


async def prove(history: History, seed: int, faults: int, folder: Path, score: Score) -> None:
    """Plant this number of faults over all operators, and add to the score."""
    rng = random.Random(seed)
    folder = _seed_folder(folder, seed)
    zone, month = SCENES[seed % len(SCENES)]
    day = _day_of_change(zone, month)
    async with history.copied(f"seed_{seed}") as owner:
        times = await _stretched(owner, zone, day, rng)
        await times.apply(owner)
        each = faults // len(history.wallets)
        for operator_id, wallet in history.wallets.items():
            dialect = new_dialect(rng, time_zone=zone, day_starts=rng.choice(("00:00", "02:30", "06:00")))
            last = day + timedelta(days=rng.choice((1, 2)))
            period = Period(
                first_day=day,
                last_day=last,
                dialect=dialect,
                cut_at=dialect.start_of(last + timedelta(days=1)),
                settle_s=rng.choice((0.0, 900.0, 20_000.0)),
            )
            books = await read_books(owner, operator_id)
            planter = Planter(books, read_wallet(wallet, times), period, rng, is_whole=rng.random() < 0.5)
            proof = _Proof(
                history=history, owner=owner, folder=folder, seed=seed, operator_id=operator_id, period=period
            )
            before = await proof.reconciled(planter.entries, rng, f"{operator_id}-{seed}-unplanted")
            proof.check_unplanted(before, planter.unplanted() if planter.is_whole else [], score)
            planted = planter.plant(each)
            planter.strip_ids(books.callbacks, share=0.3)
            for fault in planted:
                for statement, values in fault.statements:
                    await owner.execute(statement, *values)
            after = await proof.reconciled(planter.entries, rng, f"{operator_id}-{seed}-planted")
            proof.check_planted(planted, before, after, score)


def _seed_folder(folder: Path, seed: int) -> Path:
    """A folder with the operators' files, so that several seeds can run at once."""
    own = folder / f"seed-{seed}"
    shutil.copytree(folder / "operators", own / "operators")
    for key in folder.glob("*.pem"):
        shutil.copy(key, own)
    return own


def _day_of_change(zone: str, month: int) -> date:
    """Return the day of the month, last year, on which the zone's offset changes, else the 15th."""
    year = datetime.now(UTC).year - 1
    for number in range(1, 31):
        at = datetime(year, month, number, tzinfo=ZoneInfo(zone))
        if at.utcoffset() != (at + timedelta(days=1)).utcoffset():
            return at.date()
    return date(year, month, 15)


async def _stretched(owner: "asyncpg.Connection[asyncpg.Record]", zone: str, day: date, rng: random.Random) -> TimeMap:
    span = await owner.fetchrow("select min(created_at), max(updated_at) from predictu_dispatch.bet")
    assert span is not None
    begins = datetime.combine(day, time(0), ZoneInfo(zone)).astimezone(UTC)
    return TimeMap(
        start=span[0],
        to=begins - timedelta(days=rng.uniform(0.2, 0.4)),
        factor=timedelta(days=_DAYS) / (span[1] - span[0]),
    )


@dataclass(frozen=True, kw_only=True)
class _Proof:
    """One operator in one seed."""

    history: History
    owner: "asyncpg.Connection[asyncpg.Record]"
    folder: Path
    seed: int
    operator_id: str
    period: Period

    async def reconciled(self, entries: list[Entry], rng: random.Random, name: str) -> tuple[Result, Result]:
        """Return what SQL and the naive classifier find in these entries."""
        writer = LedgerWriter(self.period.dialect, rng)
        paths = writer.write(entries, self.folder, name, files=rng.choice((1, 3)))
        labels: dict[tuple[int, int], str] = {}
        for entry in sorted(entries, key=lambda one: writer.places[id(one)]):
            original = entry.copy_of or entry
            is_second = original.transaction_id in labels.values() and any(one.copy_of is original for one in entries)
            labels[writer.places[id(entry)]] = original.transaction_id + (" repeated" if is_second else "")

        def label(source: int, line: int) -> object:
            return labels[source, line]

        books = await read_books(self.owner, self.operator_id)
        lines, unreadable = read_files([path.read_bytes().decode() for path in paths], self.period.dialect)
        naive = naive_result(NaiveClassifier(books, lines, self.period), unreadable, label)
        database = await self.owner.fetchval("select current_database()")
        run_id = await reconcile(
            self.folder,
            self.history.dsn(database),
            self.operator_id,
            settings=settings_of(
                self.period.dialect, settle_s=self.period.settle_s, no_end_days=self.period.no_end_days
            ),
            period=self.period,
            paths=paths,
        )
        sql = await sql_result(self.owner, run_id, {row["request_id"] for row in books.callbacks}, label)
        there = await self.owner.fetch(
            "select source, line, column_name, why from predictu_dispatch.reconciliation_unreadable where run_id = $1",
            run_id,
        )
        found = {(row["source"], row["line"]) for row in there}
        sql.refused = [f"{row[0]}/{row[1]} {row[2]}: {row[3]}" for row in there if (row[0], row[1]) not in unreadable]
        for result, places in ((sql, found), (naive, set(unreadable))):
            for place in places:
                result.items["line", label(*place)] = _UNREADABLE
        return sql, naive

    def check_unplanted(self, results: tuple[Result, Result], natural: list[Fault], score: Score) -> None:
        sql, naive = results
        score.items += sum(count for (_, what), count in naive.rows.items() if what == "items")
        for who, result in (("SQL", sql), ("naive", naive)):
            differences = [
                f"{subject} {found}"
                for subject, found in result.items.items()
                if RULES[DifferenceClass(found.name)].kind in (Kind.DIFFERENCE, Kind.CONTRADICTION)
            ]
            self._report(score, f"unplanted, {who}", [*differences, *identity_faults(result)])
            if not result.is_complete:
                self._report(score, f"unplanted, {who}", ["the run is not complete"])
        for fault in natural:
            subject = self._subject(fault)
            found = [result.items[subject].name if subject in result.items else "agreed" for result in results]
            if found != [fault.name] * 2:
                self._report(score, "unplanted", [f"{subject} expected {fault.name}, found {found}"])
            score.classes.setdefault(fault.name, Tally()).natural += 1
        self._report(score, "unplanted, refused by the command only", sql.refused)
        self._report(score, "unplanted", disagreements(sql, naive, {}))

    def check_planted(
        self, planted: list[Fault], before: tuple[Result, Result], after: tuple[Result, Result], score: Score
    ) -> None:
        sql, naive = after
        expected = {self._subject(fault): fault for fault in planted}
        described = {subject: f"({fault.kind}, expected {fault.name})" for subject, fault in expected.items()}
        self._report(score, "planted, refused by the command only", sql.refused)
        self._report(score, "planted, SQL and naive", disagreements(sql, naive, described))
        for who, result in (("SQL", sql), ("naive", naive)):
            self._report(score, f"planted, {who}", identity_faults(result))
        for name in {found.name for found in (*sql.items.values(), *naive.items.values())} | {
            fault.name for fault in planted
        }:
            subjects = {subject for subject, fault in expected.items() if fault.name == name}
            new = [after[one].subjects(name) - before[one].subjects(name) for one in (0, 1)]
            tally = score.classes.setdefault(name, Tally())
            tally.planted += len(subjects)
            tally.sql += len(new[0])
            tally.naive += len(new[1])
            tally.hits += len(subjects & new[0] & new[1])
            for subject in subjects - (new[0] & new[1]):
                found = [result.items.get(subject) for result in after]
                self._report(score, "missed", [f"{subject} {described[subject]}: SQL {found[0]}, naive {found[1]}"])
            # A planted line may extend the given ledger, so that what was in flight is decided.
            decided = before[0].subjects("in_flight") & before[1].subjects("in_flight")
            for subject in (new[0] | new[1]) - subjects - decided:
                self._report(score, "not planted", [f"{subject} {name} {described.get(subject, '')}"])
        for subject, fault in expected.items():
            found_money = {result.items[subject].disputed for result in after if subject in result.items}
            if len(fault.money) == 1 and found_money != set(fault.money.values()):
                self._report(score, "money", [f"{subject} {described[subject]}: {found_money}, not {fault.money}"])
            score.kinds[fault.kind] += 1

    def _subject(self, fault: Fault) -> Subject:
        if fault.callback is not None:
            return "callback", fault.callback
        assert fault.entry is not None
        is_repeated = fault.entry.copy_of is not None
        return "line", fault.entry.transaction_id + (" repeated" if is_repeated else "")

    def _report(self, score: Score, where: str, faults: list[str]) -> None:
        score.faults += [f"seed {self.seed}, {self.operator_id}, {where}: {fault}" for fault in faults]


@click.command()
@click.option("--seed", default=1, show_default=True, help="The first seed.")
@click.option("--seeds", default=20, show_default=True, type=click.IntRange(1, 1000), help="Number of seeds.")
@click.option("--faults", default=500, show_default=True, type=click.IntRange(1, 5000), help="Faults of each seed.")
@click.option("--seconds", default=120.0, show_default=True, help="Duration of the chaos run.")
@click.option("--bets-per-s", default=14.0, show_default=True)
def main(*, seed: int, seeds: int, faults: int, seconds: float, bets_per_s: float) -> None:
    """Exit with 0 if every planted fault is found and nothing else, 1 if not."""
    score = asyncio.run(_play(seed=seed, seeds=seeds, faults=faults, seconds=seconds, bets_per_s=bets_per_s))
    click.echo("\n".join(score.lines()))
    click.echo(f"{seeds} seeds, {sum(score.kinds.values()):,} planted, {len(score.faults):,} wrong")
    sys.exit(1 if score.faults else 0)


async def _play(*, seed: int, seeds: int, faults: int, seconds: float, bets_per_s: float) -> Score:
    score = Score()
    with tempfile.TemporaryDirectory(prefix="predictu-reconcile-") as name:
        folder = Path(name) / "environment"
        folder.mkdir()
        async with played_history(
            folder, seed=seed, seconds=seconds, bets_per_s=bets_per_s, faults=True, log=lambda _: None
        ) as history:
            at_once = asyncio.Semaphore(_AT_ONCE)

            printed = 0

            async def one_seed(one: int) -> None:
                nonlocal printed
                async with at_once:
                    await prove(history, one, faults, folder, score)
                while printed < len(score.faults):
                    click.echo(score.faults[printed], err=True)
                    printed += 1
                planted = sum(score.kinds.values())
                click.echo(f"seed {one}: {planted:,} planted so far, {len(score.faults):,} wrong")

            async with asyncio.TaskGroup() as tasks:
                for one in range(seed, seed + seeds):
                    tasks.create_task(one_seed(one))
    return score


if __name__ == "__main__":
    main()
