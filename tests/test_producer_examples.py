"""The examples of sql/README.md in SQL and Python, run as they stand there, against a daemon and an operator."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest

from tests.support.daemons import until
from tests.support.documents import ROOT, code_under, examples
from tests.support.ledger import OPERATOR, placement_params
from tests.support.postgres import Database
from tests.support.postgres_proxy import Trick, proxied
from tests.support.producers import README, Market, open_market

SQL, PYTHON, NODE, POSTGREST, ERRORS = (
    "SQL",
    "Python (asyncpg)",
    "TypeScript (node-postgres)",
    "TypeScript (PostgREST)",
    "Errors",
)
WAIT_S = 20.0


def test_every_example_is_one_that_a_test_runs() -> None:
    """Those in TypeScript by test_producer_examples_typescript.py, all others here."""
    found = [(example.heading, example.language) for example in examples(README)]
    assert found == [
        *[(SQL, "sql")] * 4,
        *[(PYTHON, "python")] * 3,
        *[(NODE, "ts")] * 3,
        *[(POSTGREST, "ts"), (POSTGREST, "sql")],
        (ERRORS, "sql"),
    ]


@pytest.fixture
async def market(tmp_path: Path, database: Database) -> AsyncIterator[Market]:
    async with open_market(tmp_path, database) as market:
        yield market


@pytest.fixture
async def still_market(tmp_path: Path, database: Database) -> AsyncIterator[Market]:
    """Nothing is delivered here."""
    async with open_market(tmp_path, database, delivers=False) as market:
        yield market


async def test_the_sql_places_reads_ends_and_takes_back(market: Market) -> None:
    place, ask, end, take_back = code_under(README, SQL, "sql")
    ledger = market.stage.ledger
    assert await ledger.producer.fetch(ask) == []
    await ledger.producer.execute(place)

    async def is_delivered() -> bool:
        return bool(await ledger.producer.fetchval(ask) == "delivered")

    await until("the placement is delivered", is_delivered)
    answered = await ledger.producer.fetchrow(ask)
    assert answered is not None
    assert (answered["reason"], answered["effect"], answered["operator_status"]) == (None, "applied", "OK")
    await ledger.producer.execute(end)
    await market.stage.all_final()

    await ledger.producer.execute(place.replace("b-1", "b-2").replace("7f3c4a52", "8f3c4a52"))
    await market.stage.all_final()
    await ledger.producer.execute(take_back)
    await market.stage.all_final()
    assert await market.stage.bets() == {"closed": 2}
    assert await market.callbacks("b-1") == ["BET_MAKE delivered", "BET_WIN delivered"]
    assert await market.callbacks("b-2") == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await market.trades() == {"b-1": "placing", "b-2": "failed"}


async def test_the_sql_enqueues_nothing_where_the_transaction_is_rolled_back(still_market: Market) -> None:
    place = code_under(README, SQL, "sql")[0]
    await still_market.stage.ledger.producer.execute(place.replace("commit;", "rollback;"))
    assert (await still_market.trades(), await still_market.callbacks("b-1")) == ({}, [])


async def test_each_refusal_has_the_sqlstate_that_stands_beside_it(still_market: Market) -> None:
    await still_market.stage.ledger.producer.execute(code_under(README, SQL, "sql")[0])
    [block] = code_under(README, ERRORS, "sql")
    refused: list[tuple[str, str]] = []
    for statement, sqlstate in re.findall(r"^(.+?;) +-- (\w{5})$", block, flags=re.MULTILINE):
        with pytest.raises(asyncpg.PostgresError) as fault:
            await still_market.stage.ledger.producer.execute(statement)
        refused.append((sqlstate, str(fault.value.sqlstate)))
        assert sqlstate == "42501" or fault.value.hint
    assert refused == [(code, code) for code in ("PD001", "PD002", "PD003", "PD004", "PD005", "42501")]
    assert len(block.splitlines()) == len(refused)


def test_the_table_of_errors_has_every_sqlstate_that_the_schema_raises() -> None:
    text = (ROOT / README).read_text(encoding="utf-8")
    raised = {
        code
        for file in (ROOT / "sql" / "migrations").glob("*.sql")
        for code in re.findall(r"errcode = '(\w{5})'", file.read_text(encoding="utf-8"))
    }
    assert {"PD001", "PD007", "PD900", "40001"} <= raised
    assert [code for code in sorted(raised) if f"| `{code}`" not in text] == []


async def test_the_function_for_postgrest_does_both_or_neither(still_market: Market) -> None:
    [block] = code_under(README, POSTGREST, "sql")
    await still_market.stage.ledger.owner.execute(block)
    # As PostgREST calls it: each key of the JSON body is an argument by its name.
    call = "select place_trade(operator_id => $1, request_id => $2, params => $3)"
    wrong = json.dumps(placement_params("b-1", amount=-1))
    with pytest.raises(asyncpg.PostgresError, match="amount"):
        await still_market.stage.ledger.producer.execute(call, OPERATOR, uuid.uuid4(), wrong)
    assert (await still_market.trades(), await still_market.callbacks("b-1")) == ({}, [])
    request_id = uuid.uuid4()
    for _ in range(2):
        await still_market.stage.ledger.producer.execute(
            call, OPERATOR, request_id, json.dumps(placement_params("b-1"))
        )
    assert (await still_market.trades(), await still_market.callbacks("b-1")) == (
        {"b-1": "placing"},
        ["BET_MAKE ready"],
    )


async def test_the_calls_for_postgrest_name_arguments_that_the_functions_have(still_market: Market) -> None:
    [code] = code_under(README, POSTGREST, "ts")
    calls = re.findall(r'rpc\(base, token, "(\w+)", \{ (.+?) \}\)', code)
    assert [name for name, _ in calls] == ["enqueue_callback", "outcome", "rollback_bet"]
    for name, arguments in calls:
        # Newest Postgres lists the columns of a returned table there as well.
        known = await still_market.stage.ledger.owner.fetchval(
            "select proargnames from pg_proc where proname = $1 and pronamespace = 'predictu_dispatch'::regnamespace",
            name,
        )
        assert {argument.split(":")[0].strip() for argument in arguments.split(",")} <= {*known}, name


def module() -> SimpleNamespace:
    """The README's Python, its blocks one after the other, as a module that has just been imported."""
    names: dict[str, Any] = {}
    for block in code_under(README, PYTHON, "python"):
        exec(compile(block, README, "exec"), names)  # noqa: S102 # These lines are ours.
    return SimpleNamespace(**names)


class Producer:
    """A program that was written with the README open."""

    def __init__(self, pool: Any, market: Market) -> None:
        self.readme = module()
        self.pool = pool
        self.outcomes = self.readme.Outcomes(pool)
        self.market = market

    async def place(self, bet_id: str, request_id: uuid.UUID, **more: Any) -> None:
        await self.readme.place(self.pool, OPERATOR, request_id, placement_params(bet_id) | more)

    async def buy(self, bet_id: str, fill: Callable[[str], Awaitable[None]] | None = None) -> bool:
        bought: bool = await self.readme.buy(
            self.pool, self.outcomes, OPERATOR, uuid.uuid4(), placement_params(bet_id), fill or self.fill
        )
        return bought

    async def fill(self, bet_id: str) -> None:
        """As the README wants it."""
        async with self.pool.acquire() as connection, connection.transaction():
            done = await connection.execute(
                "update trade set state = 'filled' where bet_id = $1 and state = 'placing'", bet_id
            )
            if done != "UPDATE 1":
                raise RuntimeError("taken back meanwhile")


@asynccontextmanager
async def producing(market: Market, dsn: str | None = None) -> AsyncIterator[Producer]:
    """A producer that listens, with a pool of its own; `dsn` where it goes another way than the tests do."""
    pool = await asyncpg.create_pool(dsn or market.producer_dsn, min_size=0, max_size=4, command_timeout=WAIT_S)
    listener = await asyncpg.connect(market.producer_dsn)
    try:
        producer = Producer(pool, market)
        await producer.outcomes.listen(listener)
        yield producer
    finally:
        await listener.close()
        pool.terminate()


@pytest.fixture
async def producer(market: Market) -> AsyncIterator[Producer]:
    async with producing(market) as producer:
        yield producer


async def test_the_python_buys_or_takes_back_and_never_both(producer: Producer, market: Market) -> None:
    async def no_liquidity(_: str) -> None:
        raise RuntimeError("no liquidity")

    async def filled_unheard(bet_id: str) -> None:
        """The trade was committed and its answer lost. Rolled back on top, the player would hold shares for nothing."""
        await producer.fill(bet_id)
        raise OSError("connection lost")

    assert await producer.buy("bought") is True
    assert await producer.buy("unheard", filled_unheard) is True
    assert market.stage.operator.balance["p1"] == -1000
    assert await producer.buy("no-liquidity", no_liquidity) is False
    await market.stage.all_final()
    assert market.stage.operator.balance["p1"] == -1000
    market.stage.operator.refuse("INSUFFICIENT_FUNDS")
    assert await producer.buy("refused") is False
    assert await market.trades() == {
        "bought": "filled",
        "unheard": "filled",
        "no-liquidity": "failed",
        "refused": "failed",
    }
    assert await market.callbacks("bought") == await market.callbacks("unheard") == ["BET_MAKE delivered"]
    assert await market.callbacks("no-liquidity") == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await market.callbacks("refused") == ["BET_MAKE rejected"]


async def test_the_python_enqueues_nothing_where_its_transaction_fails(producer: Producer, market: Market) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await producer.place("b-1", uuid.uuid4(), amount=-1)
    fault = refused.value
    assert (fault.sqlstate, bool(fault.hint)) == ("PD003", True)
    assert "amount" in str(fault)
    assert (await market.trades(), await market.callbacks("b-1")) == ({}, [])


async def test_the_python_places_once_although_its_commit_was_not_answered(market: Market) -> None:
    async with proxied(market.producer_dsn) as proxy, producing(market, proxy.dsn()) as producer:
        proxy.on_next("COMMIT", Trick.KEEP_ANSWER)
        request_id = uuid.uuid4()
        placing = asyncio.create_task(
            producer.readme.place_surely(producer.pool, OPERATOR, request_id, placement_params("b-1"))
        )
        await asyncio.wait_for(proxy.caught.wait(), WAIT_S)
        await market.stage.all_final()
        proxy.cut()
        await placing
        assert proxy.runs("enqueue_callback") == 2
    assert await market.callbacks("b-1") == ["BET_MAKE delivered"]


async def test_the_python_hears_of_an_outcome_and_asks_also_where_it_hears_nothing(producer: Producer) -> None:
    request_id, unknown = uuid.uuid4(), uuid.uuid4()
    with pytest.raises(LookupError):
        await producer.outcomes.wait(OPERATOR, unknown, timeout_s=WAIT_S)
    operator = producer.market.stage.operator
    operator.hold()
    await producer.place("b-1", request_id)
    with pytest.raises(TimeoutError):
        await producer.outcomes.wait(OPERATOR, request_id, timeout_s=0.05)
    waiting = asyncio.create_task(producer.outcomes.wait(OPERATOR, request_id, timeout_s=WAIT_S))
    await producer.market.stage.held(1)
    operator.release()
    assert (await waiting)["state"] == "delivered"
    assert producer.outcomes.told == {}

    # Another one, that has no connection which listens.
    deaf = producer.readme.Outcomes(producer.pool)
    operator.hold()
    await producer.place("b-2", unknown)
    waiting = asyncio.create_task(deaf.wait(OPERATOR, unknown, timeout_s=WAIT_S))
    await producer.market.stage.held(1)
    operator.release()
    assert (await waiting)["state"] == "delivered"


async def test_the_python_is_told_well_before_it_would_ask_again(producer: Producer) -> None:
    """With the half second of its asking made endless, only a notification can end the wait."""
    operator = producer.market.stage.operator
    operator.hold()
    request_id = uuid.uuid4()
    await producer.place("b-1", request_id)
    asked = 0
    fetchrow = producer.pool.fetchrow

    async def counted(*query: Any) -> Any:
        nonlocal asked
        asked += 1
        found = await fetchrow(*query)
        if asked == 1:
            operator.release()
        return found

    await producer.market.stage.held(1)
    producer.outcomes.pool = SimpleNamespace(fetchrow=counted)
    names = producer.outcomes.wait.__func__.__globals__
    names["asyncio"] = SimpleNamespace(
        timeout=asyncio.timeout, Event=asyncio.Event, wait_for=lambda told, _: asyncio.wait_for(told, None)
    )
    assert (await producer.outcomes.wait(OPERATOR, request_id, timeout_s=WAIT_S))["state"] == "delivered"
    assert asked == 2
