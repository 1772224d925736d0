"""The classification in SQL: each class from histories that the real functions made."""

import asyncio
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.reconciliation.result import ITEMS_MAX
from tests.support.corruption import large, lose_chunks
from tests.support.harness import (
    OPERATOR,
    Connection,
    Harness,
    Report,
    connected,
    delivered,
    enqueue,
    exhausted,
    placement_params,
    rejected,
    retried,
    terminal_params,
)
from tests.support.postgres import Database
from tests.support.reconciliations import begin, copy, finish, line, reconcile, today

STAKE = 500
LONG_AGO = datetime(2026, 1, 5, 12, tzinfo=UTC)


class Books:
    """Histories of bets whose requests have bodies, and the lines that agree with them."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.lines: list[dict[str, Any]] = []

    async def attempt(
        self, request_id: uuid.UUID, outcome: Callable[..., Report] = delivered, **fields: Any
    ) -> uuid.UUID:
        lease = await self.harness.lease(request_id)
        body = {"method": lease["method"], "request_id": str(request_id), "params": json.loads(lease["params"])}
        await self.harness.settle(outcome(lease, **{"request_body": json.dumps(body), **fields}))
        return request_id

    async def placed(self, bet_id: str, outcome: Callable[..., Report] = delivered, **fields: Any) -> uuid.UUID:
        return await self.attempt(await self.harness.place(bet_id), outcome, **fields)

    async def ended(
        self, bet_id: str, method: str = "BET_WIN", outcome: Callable[..., Report] = delivered, **fields: Any
    ) -> uuid.UUID:
        return await self.attempt(await self.harness.end(method, bet_id), outcome, **fields)

    async def rolled_back(self, bet_id: str, **fields: Any) -> uuid.UUID:
        """Delivers the rollback that followed a placement of unknown outcome."""
        [rollback] = await self.harness.rollbacks(bet_id)
        return await self.attempt(rollback["request_id"], **fields)

    async def adopted(self, bet_id: str) -> uuid.UUID:
        placement = uuid.uuid4()
        await self.harness.producer.execute(
            "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', $3, $4)", OPERATOR, bet_id, STAKE, placement
        )
        return placement

    def book(self, amount: int, request_id: uuid.UUID | None = None, **fields: Any) -> None:
        self.lines.append(line(amount, request_id, **fields))

    async def won(self, bet_id: str) -> tuple[uuid.UUID, uuid.UUID]:
        """A debit and a payout, both booked."""
        placement, win = await self.placed(bet_id), await self.ended(bet_id)
        self.book(-STAKE, placement)
        self.book(STAKE, win)
        return placement, win


async def without_guards(owner: Connection, *statements: tuple[Any, ...]) -> None:
    """Executes statements that our triggers would refuse, as a superuser."""
    tables = ("callback", "bet", "attempt_record")
    async with owner.transaction():
        for table in tables:
            await owner.execute(f"alter table predictu_dispatch.{table} disable trigger all")
        for statement, *arguments in statements:
            await owner.execute(statement, *arguments)
        for table in tables:
            await owner.execute(f"alter table predictu_dispatch.{table} enable trigger all")


@pytest.fixture
def books(harness: Harness) -> Books:
    return Books(harness)


async def test_every_class_and_the_identity(books: Books, database: Database) -> None:  # noqa: PLR0915 - a list
    harness, expected = books.harness, dict[str, str]()

    def expect(class_: str, request_id: uuid.UUID | str) -> None:
        expected[request_id if isinstance(request_id, str) else f"request:{request_id}"] = class_

    # Agreed: by request_id, by transaction_id, by bet. A loss moves nothing; what was rejected or
    # cancelled has no line.
    await books.won("agreed")
    await books.placed("by-transaction", operator_transaction_id="tx-1")
    # It answered the loss with the debit's id.
    await books.ended("by-transaction", "BET_LOSE", operator_transaction_id="tx-1")
    books.book(-STAKE, transaction_id="tx-1")
    await books.placed("by-bet")
    await books.ended("by-bet", "BET_SELL")
    books.book(-STAKE, bet_id="by-bet")
    books.book(STAKE, bet_id="by-bet", method="BET_SELL", player_id=None)
    lost = [await books.placed("lost"), await books.ended("lost", "BET_LOSE")]
    books.book(-STAKE, lost[0])
    books.book(0, lost[1])
    await books.placed("rejected", rejected)
    await harness.place("cancelled")
    await harness.rollback("cancelled")

    # What was unknown here.
    await books.placed("unknown")
    books.book(-STAKE, bet_id="unknown")
    win = await books.ended("unknown", outcome=exhausted)
    books.book(STAKE, win)
    expect("agreed_resolves_unknown", win)
    adopted = await books.adopted("adopted")
    books.book(-STAKE, adopted)
    expect("agreed_resolves_unknown", adopted)

    # Of their lines, something is missing or differs.
    placement = await books.placed("missing-there")
    books.book(-STAKE, placement)
    expect("missing_there", await books.ended("missing-there"))
    stranger = uuid.uuid4()
    books.book(300, stranger)
    books.book(301, transaction_id="tx-stranger")
    books.book(302, bet_id="b-stranger")
    books.book(303)
    for key in (stranger, "transaction:tx-stranger", "bet:b-stranger/credit", f"line:0/{len(books.lines) + 1}"):
        expect("missing_here", key)
    placement = await books.placed("booked-though-rejected", rejected)
    books.book(-STAKE, placement)
    expect("booked_though_rejected", placement)
    placement = await harness.place("never-sent")
    await harness.rollback("never-sent")
    books.book(-STAKE, placement)
    expect("booked_though_never_sent", placement)
    booked_otherwise: dict[str, list[dict[str, Any]]] = {
        "booked_twice": [{}, {"transaction_id": "tx-second"}],
        "currency_differs": [{"currency": "SEK"}],
        "player_differs": [{"player_id": "p2"}],
        "amount_differs": [{"amount": -STAKE + 1}],
    }
    for class_, lines in booked_otherwise.items():
        placement = await books.placed(class_)
        books.lines += [line(-STAKE, placement) | fields for fields in lines]
        expect(class_, placement)

    # Rollbacks and ends.
    debit = await books.placed("standing", exhausted)
    books.book(-STAKE, debit)
    expect("debit_standing", await books.rolled_back("standing"))
    debit = await books.placed("nothing-to-reverse")
    rollback = await harness.rollback("nothing-to-reverse")
    assert rollback
    await books.attempt(rollback, state_reason="nothing_to_reverse")
    books.book(-STAKE, debit)
    expect("debit_standing", rollback)
    debit = await books.placed("standing-and-twice", exhausted)
    books.book(-STAKE, debit)
    books.book(-STAKE, debit, transaction_id="tx-third")
    expect("booked_twice", debit)
    expect("debit_standing", await books.rolled_back("standing-and-twice"))
    debit = await books.placed("reversed")
    rollback = await harness.rollback("reversed")
    assert rollback
    await books.attempt(rollback)
    books.book(-STAKE, debit)
    books.book(STAKE, rollback)
    books.book(700, bet_id="reversed", method="BET_WIN")
    expect("rolled_back_but_credited", "bet:reversed/BET_WIN")
    await books.won("two-ends")
    books.book(200, uuid.UUID(int=7), bet_id="two-ends", method="BET_SELL")
    expect("two_ends", uuid.UUID(int=7))
    # The first end of a bet that only their ledger ends is no second one.
    await books.placed("ended-there")
    books.book(-STAKE, bet_id="ended-there")
    books.book(10, transaction_id="tx-4", bet_id="ended-there", booked_at=datetime.now(UTC) - timedelta(seconds=2))
    books.book(11, transaction_id="tx-5", bet_id="ended-there", booked_at=datetime.now(UTC) - timedelta(seconds=1))
    expect("missing_here", "transaction:tx-4")
    expect("two_ends", "transaction:tx-5")

    # Counted: time is the reason.
    old = await books.placed("no-end")
    books.book(-STAKE, old)
    expect("no_end", old)
    other_day = await books.placed("day-differs")
    books.book(-STAKE, other_day, booked_at=datetime.now(UTC) - timedelta(days=1))
    expect("day_differs", other_day)
    expect("in_flight", await books.placed("being-retried", retried))
    books.book(5, transaction_id="tx-before", booked_at=datetime.now(UTC) - timedelta(days=5))
    expect("out_of_window", "transaction:tx-before")
    given_until = await harness.owner.fetchval("select clock_timestamp()")
    expect("in_flight", await books.placed("after-the-file"))
    contradicting = await books.placed("contradicting")
    books.book(-STAKE, contradicting)
    expect("ours", contradicting)
    await without_guards(
        harness.owner,
        ("update predictu_dispatch.attempt_record set verdict = 'retry' where request_id = $1", contradicting),
        ("update predictu_dispatch.callback set created_at = $2 where request_id = $1", old, LONG_AGO),
    )

    async with connected(database.reconciler, 1) as [reconciler]:
        # Two lines that are equal in all columns are one.
        found = await reconcile(
            reconciler,
            [*books.lines, {**books.lines[0], "source": 1, "booked_at": datetime.now(UTC)}],
            given=(LONG_AGO, given_until),
            no_end_days=5,
        )
    assert found.classes == expected | {f"request:{books.lines[0]['request_id']}": "booked_twice"}
    assert found.run["is_complete"]
    assert found.counts["agreed"] == 13
    days = {(entry["currency"], entry["day"]): entry for entry in json.loads(found.run["sums"])}
    for column in ("ours", "theirs"):
        sums = {(currency, str(day)): total for (currency, day), total in found.sums(column).items()}
        assert {key: Decimal(entry[column]) for key, entry in days.items()} == {
            key: sums.get(key, Decimal(0)) for key in days
        }
    assert sum(total["rows_theirs"] for total in found.totals) == found.run["lines_read"] == len(books.lines) + 1
    assert sum(total["rows_ours"] for total in found.totals) == found.run["rows_ours"]
    by_class = {item["class"]: item for item in found.items}
    assert {
        class_: sorted(int(item["disputed"]) for item in found.items if item["class"] == class_) for class_ in by_class
    } == {
        "ours": [0],
        "in_flight": [0, 0],
        "out_of_window": [0],
        # Also of the unknown debit: its first booking shows the outcome.
        "booked_twice": [STAKE] * 3,
        "currency_differs": [STAKE],
        "player_differs": [0],
        "amount_differs": [1],
        "booked_though_rejected": [STAKE],
        "booked_though_never_sent": [STAKE],
        "debit_standing": [STAKE] * 3,
        "rolled_back_but_credited": [700],
        "two_ends": [11, 200],
        "no_end": [0],
        "day_differs": [0],
        "agreed_resolves_unknown": [0, 0],
        "missing_there": [STAKE],
        "missing_here": [10, 300, 301, 302, 303],
    }
    assert [(amount["ours"], amount["theirs"]) for amount in json.loads(by_class["day_differs"]["amounts"])] == [
        (0, -STAKE),
        (-STAKE, 0),
    ]
    # Both currencies are in dispute.
    assert {
        total["currency"]: int(total["disputed"]) for total in found.totals if total["class"] == "currency_differs"
    } == {"EUR": STAKE, "SEK": STAKE}


_COPY = """
    insert into predictu_dispatch.attempt_record (operator_id, request_id, method, attempt, evidence, verdict, instance,
                                                  started_at, finished_at, report_id)
    select operator_id, request_id, method, attempt, evidence, 'retry', instance, started_at + interval '1 ms',
           finished_at, gen_random_uuid() from predictu_dispatch.attempt_record where request_id = $1
"""
_BODY = """
    update predictu_dispatch.attempt_record
       set request_body = jsonb_set(request_body::jsonb, {path}, {value})::text where request_id = $1
"""
CONTRADICTIONS = {
    "no deciding row": "delete from predictu_dispatch.attempt_record where request_id = $1",
    "two deciding rows": _COPY,
    "an attempt without a row": "update predictu_dispatch.callback set attempts = 2 where request_id = $1",
    "a gap": "update predictu_dispatch.attempt_record set attempt = 2 where request_id = $1",
    "another verdict": "update predictu_dispatch.attempt_record set verdict = 'rejected' where request_id = $1",
    "another state": "update predictu_dispatch.callback set state = 'exhausted' where request_id = $1",
    "another effect": "update predictu_dispatch.callback set effect = 'unknown' where request_id = $1",
    "another method in the audit": "update predictu_dispatch.attempt_record set method = 'BET_SELL'"
    " where request_id = $1",
    "another method was sent": _BODY.format(path="'{method}'", value="'\"BET_SELL\"'"),
    "another player was sent": _BODY.format(path="'{params,player_id}'", value="'\"p2\"'"),
    "another currency was sent": _BODY.format(path="'{params,currency}'", value="'\"SEK\"'"),
    "another amount was sent": _BODY.format(path="'{params,amount}'", value="'5'"),
    "another bet was sent": _BODY.format(path="'{params,bet_id}'", value="'\"b\"'"),
    "an unreadable request": "update predictu_dispatch.attempt_record set request_body = '{' where request_id = $1",
    "another stake": "update predictu_dispatch.bet set amount = 501 where placement_request_id = $1",
    "the bet's other player": "update predictu_dispatch.bet set player_id = 'p2' where placement_request_id = $1",
    "the bet's other currency": "update predictu_dispatch.bet set currency = 'SEK' where placement_request_id = $1",
    "another placement": "update predictu_dispatch.bet set placement_request_id = gen_random_uuid()"
    " where placement_request_id = $1",
    "another terminal": "update predictu_dispatch.bet set terminal_request_id = gen_random_uuid()"
    " where terminal_request_id = $1",
    "an open bet": "update predictu_dispatch.bet set state = 'open' where terminal_request_id = $1",
    "no callback": "delete from predictu_dispatch.callback where request_id = $1",
    "a callback that is not final": "update predictu_dispatch.callback set state = 'ready', finished_at = null"
    " where request_id = $1",
    "a callback of another day": "update predictu_dispatch.callback set state = 'exhausted',"
    " finished_at = '2026-01-05 12:00Z' where request_id = $1",
}
OF_THE_PLACEMENT = {"another stake", "the bet's other player", "the bet's other currency", "another placement"}


async def test_each_contradiction_between_intent_and_audit_is_ours(books: Books, database: Database) -> None:
    expected, corruptions = dict[str, str](), []
    for number, (name, statement) in enumerate(CONTRADICTIONS.items()):
        placement, win = await books.won(f"b-{number}")
        named = placement if name in OF_THE_PLACEMENT else win
        expected[f"request:{named}"] = "ours"
        corruptions.append((statement, named))
    # Two attempts that both confirmed, and a refund of another amount than the stake.
    placement = await books.placed("retried", retried)
    await books.attempt(placement)
    books.book(-STAKE, placement)
    expected[f"request:{placement}"] = "ours"
    corruptions.append(
        ("update predictu_dispatch.attempt_record set verdict = 'delivered' where request_id = $1", placement)
    )
    books.book(-STAKE, await books.placed("refunded"))
    refund = await books.ended("refunded", "BET_REFUND")
    books.book(STAKE, refund)
    expected[f"request:{refund}"] = "ours"
    amount = "jsonb_set(params, '{amount}', '499')"
    corruptions += [
        (f"update predictu_dispatch.callback set params = {amount} where request_id = $1", refund),  # noqa: S608
        (_BODY.format(path="'{params,amount}'", value="'499'"), refund),
    ]
    async with connected(database.reconciler, 1) as [reconciler]:
        assert (await reconcile(reconciler, books.lines)).classes == {}, "all agree before"
        await without_guards(books.harness.owner, *corruptions)
        found = await reconcile(reconciler, books.lines)
        differing = {
            name: [row["name"] for row in await reconciler.fetch(query("reconciliation_contradictions"), OPERATOR, of)]
            for name, (_, of) in zip(CONTRADICTIONS, corruptions, strict=False)
        }
    assert found.classes == expected
    assert found.run["is_complete"], "the sums and the rows are the same on both ways"
    # `show` says which values differ.
    assert [name for name, values in differing.items() if not values] == ["no callback"]
    assert (differing["another amount was sent"], differing["another placement"]) == (["amount"], ["placement"])


async def test_what_is_no_contradiction(books: Books, database: Database) -> None:
    """Decimal amounts, a retry by a person that was never sent, an attempt without a request."""
    harness = books.harness
    placement = await harness.place("decimal")
    lease = await harness.lease(placement)
    body = {"method": "BET_MAKE", "params": placement_params("decimal") | {"amount": 5.00}}
    await without_guards(
        harness.owner,
        ("update predictu_dispatch.callback set amount_format = 'decimal' where request_id = $1", placement),
    )
    await harness.settle(delivered(lease, request_body=json.dumps(body)))
    books.book(-STAKE, placement)
    books.book(-STAKE, await books.placed("retried-by-hand"))
    win = await books.ended("retried-by-hand", outcome=rejected)
    await harness.person.execute("select predictu_dispatch.retry_callback($1, $2, 'alice@desk')", OPERATOR, win)
    await harness.person.execute(
        "select predictu_dispatch.abandon_callback($1, $2, 'the operator asks for it', 'alice@desk')", OPERATOR, win
    )
    interrupted = await books.placed("interrupted", retried, request_body=None, evidence="unanswered")
    lease = await harness.lease(interrupted)
    await harness.settle(delivered(lease))
    await harness.settle(delivered(lease))
    books.book(-STAKE, interrupted)
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, books.lines)
        for one in (placement, win, interrupted):
            assert await reconciler.fetch(query("reconciliation_contradictions"), OPERATOR, one) == []
    assert found.classes == {}
    assert found.run["is_complete"]


async def test_unreadable_params_lose_no_money(books: Books, database: Database) -> None:
    """The ledger has the bet's stake and the audit's payout, and the callbacks are `ours`."""
    harness, owner = books.harness, books.harness.owner
    placement = await books.attempt(await enqueue(harness.producer, "BET_MAKE", large(placement_params("b1"))))
    win = await books.attempt(
        await enqueue(
            harness.producer, "BET_WIN", large(terminal_params("BET_WIN", await harness.bet()) | {"amount": 900})
        )
    )
    silent = await books.placed("silent")
    params = large(terminal_params("BET_SELL", await harness.bet("silent")))
    unsaid = await books.attempt(await enqueue(harness.producer, "BET_SELL", params), request_body=None)
    for request_id in (placement, win, unsaid):
        await lose_chunks(owner, request_id)
    rows = await owner.fetch("select request_id, player_id, currency, amount from predictu_dispatch.ledger")
    assert {row["request_id"]: tuple(row)[1:] for row in rows} == {
        placement: ("p1", "EUR", STAKE),
        win: ("p1", "EUR", 900),
        silent: ("p1", "EUR", STAKE),
        unsaid: ("p1", "EUR", None),
    }
    for amount, request_id in ((-STAKE, placement), (900, win), (-STAKE, silent)):
        books.book(amount, request_id)
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, books.lines)
    assert found.classes == {f"request:{request_id}": "ours" for request_id in (placement, win, unsaid)}
    assert found.run["is_complete"]
    assert sum(total["ours"] for total in found.totals) == 900 - 2 * STAKE


async def test_lines_of_other_operators_ids_and_shared_transaction_ids_match_nothing_wrong(
    books: Books, database: Database
) -> None:
    """An id is unique for one operator; a transaction id may be that of several callbacks."""
    harness = books.harness
    placement = await books.placed("b1", operator_transaction_id="tx-1")
    rollback = await harness.rollback()
    assert rollback
    await books.attempt(rollback, operator_transaction_id="tx-1")
    # The direction tells the debit from its rollback, which was answered with the same id.
    books.book(-STAKE, transaction_id="tx-1")
    books.book(STAKE, transaction_id="tx-1")
    for bet_id in ("b2", "b3"):
        await books.placed(bet_id, operator_transaction_id="tx-2")
    books.book(-STAKE, transaction_id="tx-2")
    books.book(-STAKE, transaction_id="tx-2", bet_id="b3")
    await harness.owner.execute(
        "insert into predictu_dispatch.operator (operator_id, enabled, interactive_deadline_s, settlement_deadline_s,"
        " config_fingerprint) values ('op_other', true, 15, 0, 'f')"
    )
    ping = await enqueue(harness.producer, "PING", {})
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, [*books.lines, line(1, ping)])
        others = await reconcile(reconciler, [line(-STAKE, placement)], operator_id="op_other")
    assert found.classes["transaction:tx-2"] == found.classes[f"request:{ping}"] == "missing_here"
    assert [class_ for class_ in found.classes.values() if class_ != "missing_here"] == ["missing_there"]
    assert found.counts["agreed"] == 3
    assert others.classes == {f"request:{placement}": "missing_here"}


@pytest.mark.usefixtures("harness")
async def test_sums_above_a_bigint(database: Database) -> None:
    highest = 10**18 - 1
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(
            reconciler, [line(highest, uuid.UUID(int=1), transaction_id=f"tx-{n}") for n in range(20)]
        )
    assert [item["disputed"] for item in found.items] == [20 * highest]
    assert found.sums("theirs").total() == 20 * highest
    assert found.run["is_complete"]


@pytest.mark.usefixtures("harness")
async def test_a_run_lists_some_items_of_each_class_and_counts_all(database: Database) -> None:
    lines = [line(1, transaction_id=f"tx-{n}") for n in range(ITEMS_MAX + 2)]
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, lines)
        unlisted = await reconciler.fetch(query("reconciliation_unlisted"), None, None, ITEMS_MAX)
    assert (len(found.items), found.counts["missing_here"], found.run["opened"]) == (
        ITEMS_MAX,
        ITEMS_MAX + 2,
        ITEMS_MAX,
    )
    assert (found.sums("disputed").total(), found.run["is_complete"]) == (ITEMS_MAX + 2, True)
    assert [tuple(row) for row in unlisted] == [(OPERATOR, "missing_here", 2)]


async def test_what_may_be_booked_outside_the_given_ledger_is_in_flight(books: Books, database: Database) -> None:
    before = await books.harness.owner.fetchval("select clock_timestamp()")
    placement = await books.placed("b1")
    after = await books.harness.owner.fetchval("select clock_timestamp()")
    async with connected(database.reconciler, 1) as [reconciler]:
        for given, settle_s, class_ in [
            ((before, after), 0.0, "missing_there"),
            ((before, after), 1.0, "in_flight"),
            ((before - timedelta(seconds=60), after + timedelta(seconds=60)), 1.0, "missing_there"),
            ((after, after + timedelta(seconds=60)), 0.0, "in_flight"),
            ((before - timedelta(seconds=60), before), 0.0, "in_flight"),
        ]:
            found = await reconcile(reconciler, [], given=given, settle_s=settle_s)
            assert found.classes == {f"request:{placement}": class_}


@pytest.mark.parametrize(
    ("fields", "class_"),
    [
        ({"evidence": "not_sent", "reason": "connect_refused"}, "missing_there"),
        ({"evidence": "answered", "reason": "http_500"}, "in_flight"),
        ({"evidence": "unanswered", "reason": "timeout"}, "in_flight"),
    ],
    ids=str,
)
async def test_an_attempt_that_was_not_applied_is_no_reason_to_look_for_its_booking_in_an_earlier_ledger(
    books: Books, database: Database, fields: dict[str, Any], class_: str
) -> None:
    """Else what was retried for days would be undecided in every run over its day."""
    placement = await books.placed("b1", retried, **fields)
    after = await books.harness.owner.fetchval("select clock_timestamp()")
    await books.attempt(placement)
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, [], given=(after, after + timedelta(seconds=60)))
        [run] = await reconciler.fetch(query("reconciliation_run"), OPERATOR, found.run["run_id"])
        [first] = await reconciler.fetch("select min(started_at) as at from predictu_dispatch.attempt")
    assert found.classes == {f"request:{placement}": class_}
    assert run["first_sent_at"] == (first["at"] if class_ == "in_flight" else None)


async def test_a_run_computes_the_same_again_and_a_late_file_closes_its_differences(
    books: Books, database: Database
) -> None:
    await books.won("b1")
    await books.placed("b2")
    async with connected(database.reconciler, 2) as [reconciler, other]:
        first = await reconcile(reconciler, books.lines[:1])
        # Two runs at once: each has its own lines.
        runs = [await begin(reconciler), await begin(other)]
        await asyncio.gather(copy(reconciler, runs[0], books.lines[:1]), copy(other, runs[1], books.lines))
        second, third = await asyncio.gather(finish(reconciler, runs[0], 1), finish(other, runs[1], 2))
        assert {item["item_id"] for item in first.items} == {item["item_id"] for item in second.items}
        assert len(second.items) == 2
        assert [item["class"] for item in third.items] == ["missing_there"]
        assert {item["item_id"] for item in third.items} < {item["item_id"] for item in second.items}
        assert await books.harness.owner.fetchval("select count(*) from predictu_dispatch.reconciliation_line") == 0


async def test_a_killed_run_leaves_nothing_that_counts(books: Books, database: Database) -> None:
    await books.won("b1")
    owner = books.harness.owner
    left = "select count(*) from predictu_dispatch.reconciliation_line where run_id = $1"
    async with connected(database.reconciler, 2) as [killed, reconciler]:
        run = await begin(killed)
        await copy(killed, run, books.lines)
        await killed.execute("begin")
        await finish(killed, run, 2)
        assert await owner.fetchval("select pg_terminate_backend($1, 20000)", killed.get_server_pid())
        for table in ("total", "item", "unreadable"):
            stored = f"select count(*) from predictu_dispatch.reconciliation_{table} where run_id = $1"  # noqa: S608
            assert await owner.fetchval(stored, run["run_id"]) == 0
        assert (await reconcile(reconciler, books.lines)).run["is_complete"]
        assert await owner.fetchval(left, run["run_id"]) == 2, "it might still be under way"
        await owner.execute(
            "update predictu_dispatch.reconciliation_run set started_at = started_at - interval '1 day'"
            " where run_id = $1",
            run["run_id"],
        )
        await begin(reconciler)
        assert await owner.fetchval(left, run["run_id"]) == 0


async def test_a_run_whose_lines_were_lost_is_refused_and_opens_nothing(books: Books, database: Database) -> None:
    """A crash of the server empties the unlogged table."""
    await books.won("b1")
    async with connected(database.reconciler, 1) as [reconciler]:
        run = await begin(reconciler)
        await copy(reconciler, run, books.lines[:1])
        with pytest.raises(asyncpg.PostgresError, match="lines that it has copied are gone") as raised:
            await finish(reconciler, run, 2)
        assert raised.value.sqlstate == "PD005"
        assert not await reconciler.fetch("select from predictu_dispatch.reconciliation_open")


async def test_an_unreadable_line_makes_a_run_incomplete_and_a_run_finishes_once(
    books: Books, database: Database
) -> None:
    async with connected(database.reconciler, 1) as [reconciler]:
        run = await begin(reconciler)
        unreadable = [{"source": 0, "line": 7, "column": "amount", "why": "it is no number"}]
        found = await finish(reconciler, run, 0, unreadable=unreadable)
        assert not found.run["is_complete"]
        with pytest.raises(asyncpg.PostgresError, match="has finished") as raised:
            await finish(reconciler, run, 0)
    assert raised.value.sqlstate == "PD005"
    stored = await books.harness.owner.fetch(
        "select line, column_name, why from predictu_dispatch.reconciliation_unreadable"
    )
    assert [tuple(row) for row in stored] == [(7, "amount", "it is no number")]


@pytest.mark.parametrize(
    ("settings", "sqlstate", "message"),
    [
        ({"operator_id": "op_nobody"}, "PD002", "unknown operator op_nobody"),
        ({"first": today() + timedelta(days=2), "last": today() + timedelta(days=3)}, "PD003", "in the future"),
        ({"first": today(), "last": today() - timedelta(days=1)}, "PD003", "1 to 400 days"),
        ({"settle_s": -1.0}, "PD003", "settle_s"),
        ({"first": today() - timedelta(days=60)}, "PD003", "retention has removed what ended before"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_run_that_is_refused(
    books: Books, database: Database, settings: dict[str, Any], sqlstate: str, message: str
) -> None:
    await books.harness.owner.execute(
        "insert into predictu_dispatch.removed_history values (now() - interval '30 days')"
    )
    async with connected(database.reconciler, 1) as [reconciler]:
        with pytest.raises(asyncpg.PostgresError, match=message) as raised:
            await begin(reconciler, **settings)
    assert raised.value.sqlstate == sqlstate


async def test_only_a_reconciler_begins_a_run(database: Database) -> None:
    for dsn in (database.producer, database.dispatcher, database.support, database.operations, database.auditor):
        async with connected(dsn, 1) as [other]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await begin(other)
