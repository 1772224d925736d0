"""Runs the SQL examples of sql/README.md unchanged, against a daemon and an operator."""

from __future__ import annotations

import json
import re
import uuid

import asyncpg
import pytest

from tests.support.code_blocks import ROOT, code_under, examples
from tests.support.daemons import until
from tests.support.harness import OPERATOR, connected, placement_params
from tests.support.market import README, Market
from tests.support.postgres import Database

SQL, PYTHON, NODE, POSTGREST, ERRORS, LEDGER = (
    "SQL",
    "Python (asyncpg)",
    "TypeScript (node-postgres)",
    "TypeScript (PostgREST)",
    "Errors",
    "The view ledger",
)


def test_every_example_is_run_by_a_test() -> None:
    """SQL here.

    Test_producer_examples_python.py and test_producer_examples_typescript.py run the others.
    """
    found = [(example.heading, example.language) for example in examples(README)]
    assert found == [
        *[(SQL, "sql")] * 6,
        (PYTHON, "python"),
        *[(NODE, "ts")] * 2,
        *[(POSTGREST, "ts"), (POSTGREST, "sql")],
        (ERRORS, "sql"),
        (LEDGER, "sql"),
        # Creates a role for retention; test_retention.py has one.
        ("Retention", "sql"),
    ]


async def test_the_sql_places_reads_ends_and_rolls_back(market: Market, database: Database) -> None:
    _, place, ask, end, place_another, take_back = code_under(README, SQL, "sql")
    harness = market.environment.harness
    assert await harness.producer.fetch(ask) == []
    await harness.producer.execute(place)

    async def is_delivered() -> bool:
        return bool(await harness.producer.fetchval(ask) == "delivered")

    await until("the placement is delivered", is_delivered)
    answered = await harness.producer.fetchrow(ask)
    assert answered is not None
    assert (answered["reason"], answered["effect"], answered["operator_status"]) == (None, "applied", "OK")
    await harness.producer.execute(end)
    await market.environment.until_all_final()

    await harness.producer.execute(place_another)
    await market.environment.until_all_final()
    await harness.producer.execute(take_back)
    await market.environment.until_all_final()
    assert await market.environment.bets() == {"closed": 2}
    assert await market.callbacks("b-1") == ["BET_MAKE delivered", "BET_WIN delivered"]
    assert await market.callbacks("b-2") == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await market.trades() == {"b-1": "placing", "b-2": "failed"}

    [sums] = code_under(README, LEDGER, "sql")
    now = sums.replace("2026-11-01T00:00:00Z", "yesterday").replace("2026-12-01T00:00:00Z", "tomorrow")
    async with connected(database.support, 1) as [support]:
        assert [tuple(row) for row in await support.fetch(now)] == [
            ("EUR", "BET_MAKE", 2, -1950),
            ("EUR", "BET_ROLLBACK", 1, 700),
            ("EUR", "BET_WIN", 1, 2312),
        ]


async def test_the_sql_enqueues_nothing_if_the_transaction_is_rolled_back(still_market: Market) -> None:
    place = code_under(README, SQL, "sql")[1]
    await still_market.environment.harness.producer.execute(place.replace("commit;", "rollback;"))
    assert (await still_market.trades(), await still_market.callbacks("b-1")) == ({}, [])


async def test_each_refusal_has_the_documented_sqlstate(still_market: Market) -> None:
    await still_market.environment.harness.producer.execute(code_under(README, SQL, "sql")[1])
    [block] = code_under(README, ERRORS, "sql")
    refused: list[tuple[str, str]] = []
    for statement, sqlstate in re.findall(r"^(.+?;) +-- (\w{5})$", block, flags=re.MULTILINE):
        with pytest.raises(asyncpg.PostgresError) as fault:
            await still_market.environment.harness.producer.execute(statement)
        refused.append((sqlstate, str(fault.value.sqlstate)))
        assert sqlstate == "42501" or fault.value.hint
    assert refused == [(code, code) for code in ("PD001", "PD002", "PD003", "PD004", "PD005", "42501")]
    assert len(block.splitlines()) == len(refused)


def test_the_table_of_errors_has_every_sqlstate_that_the_schema_raises() -> None:
    text = (ROOT / README).read_text(encoding="utf-8")
    raised = {
        code
        for file in (ROOT / "sql" / "functions").rglob("*.sql")
        for code in re.findall(r"errcode = '(\w{5})'", file.read_text(encoding="utf-8"))
    }
    assert {"PD001", "PD007", "PD900", "40001"} <= raised
    # No producer gets these: the first ends a subtransaction, the second is retention's.
    assert [code for code in sorted(raised - {"PD901", "55000"}) if f"| `{code}`" not in text] == []


async def test_the_postgrest_function_does_both_or_neither(still_market: Market) -> None:
    [block] = code_under(README, POSTGREST, "sql")
    await still_market.environment.harness.owner.execute(block)
    # As PostgREST does, each key of the JSON body is a named argument.
    call = "select place_trade(operator_id => $1, request_id => $2, params => $3)"
    wrong = json.dumps(placement_params("b-1", amount=-1))
    with pytest.raises(asyncpg.PostgresError, match="amount"):
        await still_market.environment.harness.producer.execute(call, OPERATOR, uuid.uuid4(), wrong)
    assert (await still_market.trades(), await still_market.callbacks("b-1")) == ({}, [])
    request_id = uuid.uuid4()
    for _ in range(2):
        await still_market.environment.harness.producer.execute(
            call, OPERATOR, request_id, json.dumps(placement_params("b-1"))
        )
    assert (await still_market.trades(), await still_market.callbacks("b-1")) == (
        {"b-1": "placing"},
        ["BET_MAKE ready"],
    )


async def test_the_postgrest_calls_use_existing_argument_names(still_market: Market) -> None:
    [code] = code_under(README, POSTGREST, "ts")
    calls = re.findall(r'rpc\(base, token, "(\w+)", \{ (.+?) \}\)', code)
    assert [name for name, _ in calls] == ["enqueue_callback", "outcome", "rollback_bet"]
    for name, arguments in calls:
        # Newer Postgres also lists the columns of a returned table there.
        known = await still_market.environment.harness.owner.fetchval(
            "select proargnames from pg_proc where proname = $1 and pronamespace = 'predictu_dispatch'::regnamespace",
            name,
        )
        assert {argument.split(":")[0].strip() for argument in arguments.split(",")} <= {*known}, name
