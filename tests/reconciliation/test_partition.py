"""For random histories, the classes partition the rows of both sides, and the money adds up."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings

from tests.reconciliation.naive_classifier import NaiveClassifier
from tests.reconciliation.random_books import random_books
from tests.reconciliation.random_rows import RandomBooks
from tests.reconciliation.reconciled import classify
from tests.reconciliation.results import disagreements, identity_faults, naive_result, sql_result
from tests.support.postgres import Server, cloned_database

_EXAMPLES = 50


class _Books:
    """One database for all examples; each has an operator of its own."""

    def __init__(self, server: Server, template: str) -> None:
        self.runner = asyncio.Runner()
        self.database = cloned_database(server, template)
        self.owner = self.runner.run(self._open())

    async def _open(self) -> "asyncpg.Connection[asyncpg.Record]":
        owner = await asyncpg.connect((await self.database.__aenter__()).owner)
        for table in ("bet", "callback", "attempt_record"):
            await owner.execute(f"alter table predictu_dispatch.{table} disable trigger all")
        return owner

    def close(self) -> None:
        self.runner.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        await self.owner.close()
        await self.database.__aexit__(None, None, None)

    async def check(self, books: RandomBooks) -> None:
        await self.owner.execute(
            "insert into predictu_dispatch.operator"
            " (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)"
            " values ($1, true, 0, 0, '')",
            books.operator_id,
        )
        await books.insert(self.owner)
        run_id = await classify(self.owner, books.operator_id, books.period, books.lines)
        classifier = NaiveClassifier(books.books, books.lines, books.period)
        known = {row["request_id"] for row in books.callbacks}
        sql = await sql_result(self.owner, run_id, known, _place)
        naive = naive_result(classifier, (), _place)
        # Every line is in exactly one item, and so is every row of ours.
        assert Counter(line.place for item in classifier.items for line in item.all_lines) == Counter(
            line.place for line in books.lines
        )
        ours = [row["request_id"] for row in books.callbacks if classifier.is_our_row(row)]
        rows = Counter(
            row["request_id"]
            for item in classifier.items
            for row in (item.callback, item.debit.callback if item.debit else None)
            if row is not None
        )
        assert all(rows[request_id] == 1 for request_id in ours)
        assert max(rows.values(), default=1) == 1
        assert not disagreements(sql, naive, {})
        assert not identity_faults(sql)
        assert sql.is_complete


def _place(source: int, line: int) -> object:
    return source, line


@pytest.fixture(scope="module")
def books_database(postgres: Server, template: str) -> Iterator[_Books]:
    database = _Books(postgres, template)
    yield database
    database.close()


@settings(
    max_examples=_EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(books=random_books())
def test_classes_partition_the_rows_and_the_money_adds_up(books_database: _Books, books: RandomBooks) -> None:
    """SQL and the naive classifier agree in every item; no row is counted twice or left out."""
    books_database.runner.run(books_database.check(books))
