"""What crosses the edges of a run: no loss disappears between two runs."""

import json
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from tests.reconciliation.test_classify import STAKE, Books, without_guards
from tests.support.harness import Connection, Harness, connected, delivered, exhausted
from tests.support.postgres import Database
from tests.support.reconciliations import begin, copy, finish, line, reconcile, today

EARLIER: dict[str, Any] = {"first": today() - timedelta(days=4), "last": today() - timedelta(days=3)}


@pytest.fixture
def books(harness: Harness) -> Books:
    return Books(harness)


async def open_classes(reconciler: Connection) -> dict[str, str]:
    """The classes of the open differences, by key."""
    rows = await reconciler.fetch("select key, class from predictu_dispatch.reconciliation_open")
    return {row["key"]: row["class"] for row in rows}


async def test_a_run_over_other_days_closes_only_what_was_missing_and_is_booked_there(
    books: Books, database: Database
) -> None:
    differs, twice, late = [await books.placed(name) for name in ("differs", "twice", "late")]
    lines = [line(-STAKE + 1, differs), line(-STAKE, twice), line(-STAKE, twice, transaction_id="tx-2")]
    expected = {f"request:{differs}": "amount_differs", f"request:{twice}": "booked_twice"}
    async with connected(database.reconciler, 1) as [reconciler]:
        await reconcile(reconciler, lines)
        assert await open_classes(reconciler) == expected | {f"request:{late}": "missing_there"}
        # The files of the days after are given, too: their lines are only counted.
        await reconcile(reconciler, lines, **EARLIER)
        assert await open_classes(reconciler) == expected | {f"request:{late}": "missing_there"}
        booked_at = datetime.now(UTC) - timedelta(days=3)
        again = [line(-STAKE, one, booked_at=booked_at, transaction_id="tx-3") for one in (late, differs, twice)]
        found = await reconcile(reconciler, again, **EARLIER)
        assert set(found.classes.values()) == {"day_differs"}
        assert await open_classes(reconciler) == expected


async def test_a_run_that_was_given_less_closes_no_difference_of_its_days(books: Books, database: Database) -> None:
    begins_at = datetime.now(UTC) - timedelta(hours=1)
    missing, twice = [await books.placed(name) for name in ("missing", "twice")]
    later = datetime.now(UTC)
    both = [line(-STAKE, twice, booked_at=begins_at), line(-STAKE, twice, booked_at=later)]
    expected = {f"request:{missing}": "missing_there", f"request:{twice}": "booked_twice"}
    async with connected(database.reconciler, 1) as [reconciler]:
        everything = (begins_at, later + timedelta(hours=1))
        await reconcile(reconciler, both, given=everything)
        assert await open_classes(reconciler) == expected
        # The next night's run has the same day, but its ledger begins later.
        found = await reconcile(reconciler, both[1:], given=(later, everything[1]))
        assert found.classes == {f"request:{missing}": "in_flight"}
        assert await open_classes(reconciler) == expected
        # What it was given is enough to find one of them again; it is open once.
        found = await reconcile(reconciler, both, given=(later, everything[1]))
        assert await open_classes(reconciler) == expected
        assert await reconciler.fetchval("select count(*) from predictu_dispatch.reconciliation_open") == len(expected)
        await reconcile(reconciler, both[1:], given=everything)
        assert await open_classes(reconciler) == {f"request:{missing}": "missing_there"}


async def test_a_run_in_another_time_zone_closes_nothing_of_hours_that_it_does_not_have(
    books: Books, database: Database
) -> None:
    await books.placed("standing")
    given = datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1)
    await books.placed("missing")
    reversal = await books.harness.rollback("standing")
    assert reversal
    await books.attempt(reversal, state_reason="nothing_to_reverse")
    contradicting = await books.placed("contradicting")
    update = "update predictu_dispatch.attempt_record set verdict = 'retry' where request_id = $1"
    await without_guards(books.harness.owner, (update, contradicting))
    day = today() - timedelta(days=1)
    since_then = datetime.now(UTC) - datetime.combine(day, time(0), UTC)
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, [], first=day, last=day + timedelta(days=2), given=given)
        assert set(found.classes.values()) == {"missing_there", "debit_standing", "ours"}
        expected = await open_classes(reconciler)
        found = await reconcile(reconciler, [], first=day, last=day + timedelta(days=2), day_starts=since_then)
        assert found.classes == {}
        assert await open_classes(reconciler) == expected


async def test_a_rollback_that_credited_a_player_without_a_debit_differs(books: Books, database: Database) -> None:
    begins_at = await books.harness.owner.fetchval("select clock_timestamp()")
    debit = await books.placed("b1", exhausted)
    after_the_debit = datetime.now(UTC)
    rollback = await books.rolled_back("b1")
    bookings = [line(STAKE, rollback), line(-STAKE, debit)]
    end = datetime.now(UTC) + timedelta(hours=1)
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, bookings, given=(begins_at, end))
        assert set(found.classes.values()) == {"agreed_resolves_unknown"}
        found = await reconcile(reconciler, bookings[:1], given=(begins_at, end))
        assert found.classes[f"request:{rollback}"] == "amount_differs"
        assert [item["disputed"] for item in found.items if item["class"] == "amount_differs"] == [STAKE]
        # The debit may be in a ledger that was not given.
        found = await reconcile(reconciler, bookings[:1], given=(after_the_debit, end))
        assert found.classes == {f"request:{rollback}": "agreed_resolves_unknown", f"request:{debit}": "in_flight"}


async def test_a_standing_debit_in_a_ledger_that_was_not_given_is_not_agreed(books: Books, database: Database) -> None:
    await books.placed("confirmed")
    await books.adopted("adopted")
    debit = await books.placed("unknown", exhausted)
    after_the_debits = datetime.now(UTC)
    unknown_reversal = await books.rolled_back("unknown", state_reason="nothing_to_reverse")
    reversals = []
    for bet_id in ("confirmed", "adopted"):
        reversal = await books.harness.rollback(bet_id)
        assert reversal
        reversals.append(await books.attempt(reversal, state_reason="nothing_to_reverse"))
    end = datetime.now(UTC) + timedelta(hours=1)
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, [], given=(after_the_debits, end))
        assert found.classes == {
            **{f"request:{reversal}": "debit_standing" for reversal in reversals},
            **{f"request:{one}": "in_flight" for one in (debit, unknown_reversal)},
        }
        # It was booked on another day than that of the rollback, which said that there was none.
        booked_at = datetime.now(UTC) - timedelta(days=3)
        found = await reconcile(reconciler, [line(-STAKE, debit, booked_at=booked_at)], **EARLIER)
        assert found.classes == {f"request:{debit}": "debit_standing"}
        assert [item["disputed"] for item in found.items] == [STAKE]


async def test_a_transaction_id_that_is_used_again_matches_no_other_bet(books: Books, database: Database) -> None:
    await books.placed("old", operator_transaction_id="tx-1")
    await books.placed("third", operator_transaction_id="tx-3")
    unanswered = await books.placed("new", exhausted)
    bookings = [line(-STAKE, transaction_id="tx-1", bet_id="new"), line(-STAKE, transaction_id="tx-2", bet_id="old")]
    # An id of a bet that is not ours says nothing.
    bookings.append(line(-STAKE, transaction_id="tx-3", bet_id="their-own-number"))
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, bookings)
    assert found.classes == {f"request:{unanswered}": "agreed_resolves_unknown"}
    assert found.counts["agreed"] == 2


async def test_a_transaction_id_of_very_many_callbacks_matches_none_of_them(books: Books, database: Database) -> None:
    """Reading all of them for each line would take hours."""
    for number in range(10):
        await books.placed(f"b{number}", operator_transaction_id="0")
    await books.ended("b0", operator_transaction_id="0")
    bookings = [line(STAKE, transaction_id="0"), line(-STAKE, transaction_id="0", bet_id="b1")]
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, bookings)
    assert found.classes["transaction:0"] == "missing_here"
    assert found.counts["agreed"] == 1


async def test_a_late_attempt_that_sent_another_player_contradicts(books: Books, database: Database) -> None:
    placement = await books.harness.place("b1")
    lease = await books.harness.lease(placement)
    for player_id in ("p1", "p9"):  # The second report is late.
        body = {"method": "BET_MAKE", "params": {**json.loads(lease["params"]), "player_id": player_id}}
        await books.harness.settle(delivered(lease, request_body=json.dumps(body)))
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, [line(-STAKE, placement)])
    assert found.classes == {f"request:{placement}": "ours"}


async def test_a_second_booking_in_another_currency_is_listed_with_its_money(books: Books, database: Database) -> None:
    placement = await books.placed("b1")
    bookings = [line(-STAKE, placement), line(-7000, placement, currency="SEK")]
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, bookings)
    assert [(item["class"], item["currency"], item["disputed"]) for item in found.items] == [
        ("booked_twice", "SEK", 7000)
    ]


async def test_the_first_booking_of_an_unknown_outcome_is_not_disputed(books: Books, database: Database) -> None:
    """Only what differs from the request is; the whole booking is a part of the identity."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    booked: dict[str, tuple[int, list[dict[str, Any]]]] = {
        "less": (-1, [{"amount": STAKE - 1}]),
        "twice": (STAKE, [{}, {"transaction_id": "tx-2"}]),
        "in-another-currency": (-STAKE, [{"currency": "SEK", "amount": 7000}]),
        "of-another-player": (0, [{"player_id": "p2"}]),
        # The other booking is in another period, and shows the outcome there.
        "again": (STAKE, [{"booked_at": yesterday - timedelta(days=2)}, {"transaction_id": "tx-3"}]),
    }
    wins, bookings = {}, []
    for bet_id, (_, lines) in booked.items():
        bookings.append(line(-STAKE, await books.placed(bet_id)))
        wins[await books.ended(bet_id, outcome=exhausted)] = bet_id
        bookings += [line(STAKE, list(wins)[-1]) | fields for fields in lines]
    async with connected(database.reconciler, 1) as [reconciler]:
        found = await reconcile(reconciler, bookings, given=(yesterday - timedelta(days=3), datetime.now(UTC)))
    assert {wins[item["request_id"]]: item["disputed"] for item in found.items if item["currency"] == "EUR"} == {
        bet_id: abs(over) for bet_id, (over, _) in booked.items()
    }
    sums = Counter[tuple[str, str]]()
    for total in found.totals:
        for column in ("disputed", "owed", "ours", "theirs"):
            sums[total["currency"], column] += total[column]
    overs = [over for over, _ in booked.values()]
    assert (sums["EUR", "disputed"], sums["EUR", "owed"]) == (sum(map(abs, overs)), STAKE + 1)
    assert (sums["SEK", "disputed"], sums["SEK", "owed"]) == (7000, 0)
    assert found.run["is_complete"]


async def test_a_run_that_could_not_read_all_lines_closes_no_difference_of_lines(
    books: Books, database: Database
) -> None:
    twice, late = [await books.placed(name) for name in ("twice", "late")]
    bookings = [line(-STAKE, twice), line(-STAKE, twice, transaction_id="tx-2"), line(-STAKE, late)]
    fault = {"source": 0, "line": 9, "column": "amount", "why": '"-5,00" is no whole number'}
    async with connected(database.reconciler, 1) as [reconciler]:
        await reconcile(reconciler, bookings[:2])
        assert len(await open_classes(reconciler)) == 2
        run = await begin(reconciler)
        await copy(reconciler, run, bookings[1:])
        found = await finish(reconciler, run, 2, unreadable=[fault])
        assert (found.classes, found.run["is_complete"]) == ({}, False)
        assert await open_classes(reconciler) == {f"request:{twice}": "booked_twice"}
        await reconcile(reconciler, bookings[1:])
        assert await open_classes(reconciler) == {}


async def test_a_run_that_could_not_read_any_line_knows_our_side_only(books: Books, database: Database) -> None:
    """No booking is reported as missing only because the file has another format."""
    owner, fault = books.harness.owner, {"source": 0, "line": 2, "column": "booked_at", "why": "is empty"}
    missing, twice = await books.placed("missing"), await books.placed("twice")
    expected = {f"request:{missing}": "missing_there", f"request:{twice}": "booked_twice"}

    async with connected(database.reconciler, 1) as [reconciler]:

        async def open_after_reading(lines_read: int, *faults: dict[str, Any]) -> dict[str, str]:
            await finish(reconciler, await begin(reconciler), lines_read, unreadable=faults)
            return await open_classes(reconciler)

        await reconcile(reconciler, [line(-STAKE, twice), line(-STAKE, twice, transaction_id="tx-2")])
        assert await open_classes(reconciler) == expected
        contradicting = await books.placed("contradicting")
        update = "update predictu_dispatch.attempt_record set verdict = $2 where request_id = $1"
        await without_guards(owner, (update, contradicting, "retry"))
        assert await open_after_reading(0, fault) == expected | {f"request:{contradicting}": "ours"}
        await without_guards(owner, (update, contradicting, "delivered"))
        assert await open_after_reading(0, fault) == expected
        # An empty ledger says that nothing was booked.
        assert await open_after_reading(0) == {
            f"request:{one}": "missing_there" for one in (missing, twice, contradicting)
        }
