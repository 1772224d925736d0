"""The producers' packages in Python and TypeScript keep the same promises, with a real daemon."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from predictu_dispatch_client import Outcome, Outcomes

from tests.clients.callers import WAIT_S, Caller, Refused, typescript_caller
from tests.clients.conftest import OpenCaller
from tests.support.daemons import until
from tests.support.harness import DISABLED, OPERATOR
from tests.support.market import Market, open_market
from tests.support.operators import FUNDS
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Database
from tests.support.postgres_proxy import PostgresProxy, Trick, proxied
from tests.support.typescript import needs_node

PLAYER = "p-1"
STAKE = 1250
NEVER_S = 3600.0


async def placed(caller: Caller, bet_id: str, **more: Any) -> dict[str, Any]:
    """Places a bet and waits for its outcome."""
    request_id = uuid.uuid4()
    await caller("place", bet_id=bet_id, request_id=request_id, **more)
    outcome: dict[str, Any] = await caller("placed", request_id=request_id, timeout_s=WAIT_S)
    return outcome


async def refused(caller: Caller, name: str, **given: Any) -> dict[str, Any]:
    with pytest.raises(Refused) as fault:
        await caller(name, **given)
    return dict(fault.value.fields)


async def listeners(market: Market) -> set[int]:
    """Returns the process ids of the producer's sessions that have run LISTEN."""
    rows = await market.environment.harness.owner.fetch(
        "select pid from pg_stat_activity where datname = current_database() and usename = 'test_producer'"
        " and query ilike 'listen%outcome%' and state = 'idle'"
    )
    return {row["pid"] for row in rows}


async def test_a_bet_is_placed_and_ends_in_each_way(caller: Caller, market: Market) -> None:
    ends = {"BET_WIN": 2312, "BET_SELL": 900, "BET_REFUND": STAKE, "BET_LOSE": 0}
    outcome = await placed(caller, "BET_WIN")
    assert outcome.pop("finished_at")
    assert outcome == {
        "state": "delivered",
        "reason": None,
        "effect": "applied",
        "operator_status": "OK",
        "operator_transaction_id": "tx-0",
        "balance": str(FUNDS - STAKE),
    }
    for bet_id in ("BET_SELL", "BET_REFUND", "BET_LOSE", "taken back"):
        await placed(caller, bet_id)
    for method, amount in ends.items():
        await caller("end", bet_id=method, request_id=uuid.uuid4(), method=method, amount=amount)
    assert await caller("roll_back", bet_id="taken back") == await caller("roll_back", bet_id="taken back")
    await market.environment.until_all_final()
    assert await market.environment.bets() == {"closed": 5}
    for method in ends:
        assert await market.callbacks(method) == ["BET_MAKE delivered", f"{method} delivered"]
    assert await market.callbacks("taken back") == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await caller("balance", player_id=PLAYER) == str(FUNDS - 4 * STAKE + sum(ends.values()))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            '{"status": "INSUFFICIENT_FUNDS"}',
            ("the operator rejected it: INSUFFICIENT_FUNDS; nothing was debited", "INSUFFICIENT_FUNDS", "none"),
        ),
        (
            '{"status": "PLAYER_TIRED"}',
            (
                "the operator rejected it: PLAYER_TIRED; a debit, if there was one, is returned",
                "PLAYER_TIRED",
                "unknown",
            ),
        ),
        (
            "<html>",
            ("the operator gave no valid answer; a debit, if there was one, is returned", None, "unknown"),
        ),
    ],
    ids=["rejected", "unknown status", "exhausted"],
)
async def test_a_bet_that_the_operator_does_not_confirm_has_a_reason(
    caller: Caller, market: Market, answer: str, expected: tuple[str, str | None, str]
) -> None:
    operator = market.environment.operator
    operator.answer = lambda request: web.Response(text=answer) if request.method == "BET_MAKE" else None
    request_id = uuid.uuid4()
    await caller("place", bet_id="b-1", request_id=request_id)
    fault = await refused(caller, "placed", request_id=request_id, timeout_s=WAIT_S)
    assert (fault["name"], fault["message"]) == ("BetNotPlaced", expected[0])
    assert (fault["reason"], fault["operator_status"], fault["effect"]) == expected
    await market.environment.until_all_final()
    assert len(await market.callbacks("b-1")) == (1 if fault["effect"] == "none" else 2)


async def test_the_example_of_the_readme_buys_and_says_why_not(caller: Caller, market: Market) -> None:
    assert await caller("buy", bet_id="b-1") is None
    market.environment.operator.refuse("INSUFFICIENT_FUNDS")
    assert "INSUFFICIENT_FUNDS" in await caller("buy", bet_id="b-2")
    assert await market.callbacks("b-1") == ["BET_MAKE delivered"]


async def test_a_bet_that_was_never_sent_has_a_reason(caller: Caller, market: Market) -> None:
    environment = market.environment
    pause = "select predictu_dispatch.pause_operator($1, 'test', 'test')"
    await environment.harness.person.execute(pause, OPERATOR)
    request_id = uuid.uuid4()
    await caller("place", bet_id="b-1", request_id=request_id)
    fault = await refused(caller, "placed", request_id=request_id, timeout_s=WAIT_S)
    assert (fault["reason"], fault["effect"]) == ("the operator is paused; nothing was debited", "none")
    assert environment.operator.sent(request_id) == []


async def test_a_bet_that_was_cancelled_has_a_reason(
    open_caller: OpenCaller, tmp_path: Path, database: Database
) -> None:
    async with (
        open_market(tmp_path, database, delivers=False) as market,
        open_caller(market.producer_dsn, None, 0.05) as caller,
    ):
        request_id = uuid.uuid4()
        await caller("place", bet_id="b-1", request_id=request_id)
        assert await caller("roll_back", bet_id="b-1") is None
        fault = await refused(caller, "placed", request_id=request_id, timeout_s=WAIT_S)
        assert fault["reason"] == "it was cancelled before it was sent; nothing was debited"


async def test_each_refusal_is_an_error_of_its_own(caller: Caller, market: Market) -> None:
    request_id = uuid.uuid4()
    await caller("place", bet_id="b-1", request_id=request_id)
    owner = market.environment.harness.owner
    calls: list[tuple[str, str, str, dict[str, Any]]] = [
        ("UnknownOperator", "PD002", "place", {"operator_id": DISABLED}),
        ("BadParams", "PD003", "place", {"amount": -1}),
        ("RequestIdReused", "PD004", "place", {"amount": STAKE + 1, "request_id": request_id}),
        ("BetState", "PD005", "roll_back", {"bet_id": "b-404"}),
    ]
    faults = [
        await refused(caller, call, **{"bet_id": "b-1", "request_id": uuid.uuid4()} | given)
        for _, _, call, given in calls
    ]
    assert [(fault["name"], fault["sqlstate"]) for fault in faults] == [(name, code) for name, code, _, _ in calls]
    assert all(fault["message"] and fault["hint"] for fault in faults)
    assert "amount" in faults[1]["message"]

    await owner.execute("insert into predictu_dispatch.producer_scope values ($1, 'test_producer')", DISABLED)
    fault = await refused(caller, "placed", request_id=request_id, timeout_s=WAIT_S)
    assert (fault["name"], fault["sqlstate"], bool(fault["hint"])) == ("NotAllowed", "PD008", True)
    # The transaction of a refused call had no effect.
    assert await market.trades() == {"b-1": "placing"}


async def test_an_outcome_comes_by_polling_without_a_notification(open_caller: OpenCaller, market: Market) -> None:
    async with open_caller(market.producer_dsn, None, 0.02) as caller:
        assert await listeners(market) == set()
        assert (await placed(caller, "b-1"))["state"] == "delivered"


async def test_a_transaction_pooling_proxy_loses_nothing(open_caller: OpenCaller, market: Market) -> None:
    """Each transaction may get another session, and LISTEN succeeds without an effect."""
    pooler = PgBouncer(market.producer_dsn)
    await asyncio.to_thread(pooler.start)
    try:
        dsn = pooler.through(market.producer_dsn)
        async with open_caller(dsn, dsn, 0.05) as caller:
            for number in range(5):
                assert (await placed(caller, f"b-{number}"))["state"] == "delivered"
            assert await caller("balance", player_id=PLAYER) == str(FUNDS - 5 * STAKE)
    finally:
        pooler.stop()


async def test_an_outcome_comes_by_a_notification_also_after_the_listener_was_cut(
    open_caller: OpenCaller, market: Market
) -> None:
    owner, operator = market.environment.harness.owner, market.environment.operator
    cut: set[int] = set()

    async def one_listens() -> bool:
        return len(await listeners(market) - cut) == 1

    async with (
        proxied(market.producer_dsn) as proxy,
        open_caller(proxy.dsn(), market.producer_dsn, NEVER_S) as caller,
    ):
        for count, bet_id in enumerate(("b-1", "b-2"), start=1):
            await until("the producer listens", one_listens)
            operator.hold()
            request_id = uuid.uuid4()
            await caller("place", bet_id=bet_id, request_id=request_id)
            await market.environment.until_in_flight(1)
            waiting = asyncio.create_task(caller("placed", request_id=request_id, timeout_s=WAIT_S))
            await until("it has asked", partial(has_run, proxy, "predictu_dispatch.outcome", 2 * count - 1))
            operator.release()
            assert (await waiting)["state"] == "delivered"
            assert proxy.runs("predictu_dispatch.outcome") == 2 * count
            cut |= await listeners(market)
            await owner.execute("select pg_terminate_backend(pid) from unnest($1::integer[]) pid", [*cut])


def has_run(proxy: PostgresProxy, marker: str, times: int) -> bool:
    return proxy.runs(marker) == times


async def test_many_waits_share_one_listening_connection(open_caller: OpenCaller, market: Market) -> None:
    count = 100
    async with open_caller(market.producer_dsn, market.producer_dsn, 5.0) as caller:
        request_ids = [uuid.uuid4() for _ in range(count)]
        for number, request_id in enumerate(request_ids):
            await caller("place", bet_id=f"b-{number}", request_id=request_id)
        # Twice: two waits for one outcome both get it.
        outcomes = await caller("placed_all", request_ids=[str(one) for one in request_ids * 2], timeout_s=WAIT_S)
        assert [outcome["state"] for outcome in outcomes] == ["delivered"] * 2 * count
        assert len(await listeners(market)) == 1
    assert market.environment.operator.balance[PLAYER] == -count * STAKE


async def test_a_wait_ends_after_its_timeout_and_for_an_unknown_request(caller: Caller, market: Market) -> None:
    market.environment.operator.hold()
    request_id = uuid.uuid4()
    await caller("place", bet_id="b-1", request_id=request_id)
    late = await refused(caller, "placed", request_id=request_id, timeout_s=0.05)
    assert (late["name"] in {"Timeout", "OutcomeTimeout"}, "is not final after" in late["message"]) == (True, True)
    unknown = await refused(caller, "placed", request_id=uuid.uuid4(), timeout_s=WAIT_S)
    assert "did you commit?" in unknown["message"]


async def test_a_bet_counts_once_if_the_commits_answer_is_lost(open_caller: OpenCaller, market: Market) -> None:
    async with (
        proxied(market.producer_dsn) as proxy,
        open_caller(proxy.dsn(), market.producer_dsn, 0.5) as caller,
    ):
        request_id = uuid.uuid4()
        commit = "commit" if type(caller).__name__ == "_TypeScript" else "COMMIT"
        proxy.on_next(commit, Trick.KEEP_ANSWER)
        placing = asyncio.create_task(caller("place", bet_id="b-1", request_id=request_id))
        await asyncio.wait_for(proxy.caught.wait(), WAIT_S)
        await market.environment.until_all_final()
        proxy.cut()
        await placing
        assert proxy.runs("enqueue_callback") == 2
        assert (await caller("placed", request_id=request_id, timeout_s=WAIT_S))["state"] == "delivered"
    assert await market.callbacks("b-1") == ["BET_MAKE delivered"]
    assert market.environment.operator.balance[PLAYER] == -STAKE


async def test_a_wait_continues_after_the_database_was_away(open_caller: OpenCaller, market: Market) -> None:
    async with proxied(market.producer_dsn) as proxy, open_caller(proxy.dsn(), None, 0.05) as caller:
        market.environment.operator.hold()
        request_id = uuid.uuid4()
        await caller("place", bet_id="b-1", request_id=request_id)
        waiting = asyncio.create_task(caller("placed", request_id=request_id, timeout_s=WAIT_S))
        await until("it polls", lambda: proxy.runs("predictu_dispatch.outcome") > 1)
        proxy.refuse_connections()
        await until("it asks in vain", lambda: proxy.refused > 1)
        await market.environment.until_in_flight(1)
        market.environment.operator.release()
        await market.environment.until_all_final()
        proxy.accept_connections()
        assert (await waiting)["state"] == "delivered"


async def test_large_amounts_keep_every_digit(caller: Caller, market: Market) -> None:
    large = 2**53 + 1
    market.environment.operator.balance[PLAYER] = 2 * large
    outcome = await placed(caller, "b-1", amount=large)
    assert outcome["balance"] == str(FUNDS + large)
    [request] = market.environment.operator.requests[-1:]
    assert f'"amount":{large}' in request.body.decode()
    assert json.loads(request.body)["params"]["amount"] == large
    assert await caller("balance", player_id=PLAYER) == str(FUNDS + large)


async def test_money_is_exact_in_every_currency(caller: Caller, market: Market) -> None:
    await market.environment.harness.owner.execute("select predictu_dispatch.add_currency('BTC', 8)")
    for units, currency, digits, subunits, text in (
        ("12.5", "EUR", 2, "1250", "12.50 EUR"),
        ("-0.05", "EUR", 2, "-5", "-0.05 EUR"),
        ("1200", "JPY", 0, "1200", "1200 JPY"),
        ("1.234", "BHD", 3, "1234", "1.234 BHD"),
        ("0.00000001", "BTC", 8, "1", "0.00000001 BTC"),
        ("90071992547409.93", "USD", 2, str(2**53 + 1), "90071992547409.93 USD"),
    ):
        assert await caller("digits", currency=currency) == digits
        assert await caller("money", units=units, currency=currency, digits=digits) == [subunits, text]
    assert "XXQ" in (await refused(caller, "digits", currency="XXQ"))["message"]
    assert "12.505" in (await refused(caller, "money", units="12.505", currency="EUR", digits=2))["message"]


@needs_node
async def test_a_transaction_that_committed_nothing_is_an_error(program: Callable[[], Path], market: Market) -> None:
    """Postgres answers COMMIT with ROLLBACK if the caller caught a statement's error."""
    async with typescript_caller(program(), market.producer_dsn, None, 0.05) as caller:
        fault = await refused(caller, "place_and_catch", bet_id="b-1")
        assert "nothing was committed" in fault["message"]
        assert '"odds" is NaN' in (await refused(caller, "place_without_odds", bet_id="b-1"))["message"]
    assert await market.callbacks("b-1") == []


async def test_a_wait_that_is_cancelled_while_it_is_notified_ends() -> None:
    class Unfinished:
        async def fetchrow(self, _query: str, /, *_args: object) -> Any:
            return dict.fromkeys(Outcome.__slots__) | {"state": "ready"}

    outcomes, request_id = Outcomes(Unfinished(), poll_s=NEVER_S), uuid.uuid4()
    waiting = asyncio.create_task(outcomes.wait(OPERATOR, request_id))
    await asyncio.sleep(0)  # It has read the outcome, and waits for a notification.
    await asyncio.sleep(0)
    outcomes._wake(None, 0, "", f"{OPERATOR} {request_id}")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, WAIT_S)


async def test_request_ids_begin_with_the_time(caller: Caller) -> None:
    first, second = [uuid.UUID(await caller("new_request_id")) for _ in range(2)]
    assert (first.version, first.variant, first == second) == (7, uuid.RFC_4122, False)
    assert 0 <= (second.int >> 80) - (first.int >> 80) < 60_000
