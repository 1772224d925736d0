"""Which differences are open, and what closes them."""

import asyncio
import json
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest

from predictu_dispatch.core.difference_classes import TABLE, Kind
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.differences import ALICE, BOB, DAY, accept, explain, finished_run, ids, item, open_items
from tests.support.harness import DISABLED, OPERATOR, Connection, Harness, connected, until_blocked
from tests.support.interventions import refusal
from tests.support.postgres import Database
from tests.support.retention import LONG_AGO, RECENTLY, run_retention

BY_DEFINITION = """
select i.item_id
  from predictu_dispatch.reconciliation_item i
  join predictu_dispatch.reconciliation_run r using (operator_id, run_id)
 where i.class = any ($1)
   and not exists (
       select from predictu_dispatch.reconciliation_run newer
        cross join lateral (
            select coalesce(bool_or(o.class = 'in_flight'), false) as is_in_flight, count(*) > 0 as has_key,
                   coalesce(bool_or(o.item_id = i.item_id), false) as has_item
              from predictu_dispatch.reconciliation_item o
             where o.operator_id = newer.operator_id and o.run_id = newer.run_id and o.key = i.key) found
        where newer.operator_id = i.operator_id and newer.finished_at > r.finished_at
          and (i.day between newer.first_day and newer.last_day and not found.is_in_flight
               or found.has_item
               or i.class = 'missing_there' and found.has_key and not found.is_in_flight))
   and not exists (
       select from predictu_dispatch.intervention a
        where a.operator_id = i.operator_id and a.action = 'accept' and (a.before ->> 'item_id')::uuid = i.item_id)
"""
"""As predictu_dispatch/reconciliation/README.md says it, whatever was written before."""
DIFFERENCES = [rule.name for rule in TABLE if rule.kind in (Kind.DIFFERENCE, Kind.CONTRADICTION)]


class People(NamedTuple):
    """Two reconcilers with logins of their own."""

    alice: Connection
    bob: Connection


@pytest.fixture
async def people(database: Database) -> AsyncIterator[People]:
    async with connected(database.reconciler, 1) as [alice], connected(database.second_reconciler, 1) as [bob]:
        yield People(alice, bob)


async def test_the_kinds_of_classes_are_those_of_the_table(harness: Harness) -> None:
    rows = await harness.owner.fetch(
        "select name, predictu_dispatch.difference_kind(name) from unnest($1::text[]) as name", [r.name for r in TABLE]
    )
    assert [tuple(row) for row in rows] == [(rule.name, rule.kind) for rule in TABLE]


async def test_the_newest_run_of_a_day_counts_and_an_item_with_the_same_key_closes(harness: Harness) -> None:
    owner = harness.owner
    lost, kept, late = item("request:1"), item("request:2"), item("request:3", day=DAY + timedelta(days=1))
    counted = item("request:4", "in_flight")
    await finished_run(owner, lost, kept, counted)
    assert await open_items(owner) == ids(lost, kept)
    other = await finished_run(owner, late, first=DAY + timedelta(days=1))
    assert await open_items(owner) == ids(lost, kept, late)
    # The file of the first day came again, and is complete now.
    first = await finished_run(owner, kept)
    assert await open_items(owner) == ids(kept, late)
    # Its key is counted only, in a run of other days.
    last = await finished_run(owner, item("request:2", "day_differs"), first=DAY + timedelta(days=2))
    assert await open_items(owner) == ids(late)
    rows = await owner.fetch("select run_id, opened, closed from predictu_dispatch.reconciliation_run")
    changes = {row["run_id"]: (row["opened"], row["closed"]) for row in rows}
    assert [changes[run] for run in (other, first, last)] == [(1, 0), (0, 1), (0, 1)]


async def test_what_is_open_is_as_defined_after_any_runs_and_acceptances(harness: Harness, people: People) -> None:
    """In random histories of overlapping periods, in which keys and amounts come back."""
    rng = random.Random(7)
    for _ in range(60):
        first = DAY + timedelta(days=rng.randrange(6))
        length = rng.choice((1, 1, 1, 3, 7))
        found = {
            key: item(
                key,
                rng.choice(("missing_there", "missing_there", "booked_twice", "ours", "day_differs", "in_flight")),
                day=first + timedelta(days=rng.randrange(length)),
                ours=rng.choice((1, 2)),
            )
            for key in rng.sample([f"request:{n}" for n in range(12)], rng.randrange(8))
        }
        await finished_run(harness.owner, *found.values(), first=first, last=first + timedelta(days=length - 1))
        if found_open := sorted(await open_items(harness.owner)):
            item_id = rng.choice(found_open)
            await explain(people.alice, item_id)
            if rng.random() < 0.4:
                await accept(people.bob, item_id)
        expected = {row["item_id"] for row in await harness.owner.fetch(BY_DEFINITION, DIFFERENCES)}
        assert await open_items(harness.owner) == expected


async def test_two_logins_close_a_difference_until_its_amounts_change(harness: Harness, people: People) -> None:
    request_id, difference = uuid.uuid4(), item("request:1", bet_id="b1")
    await finished_run(harness.owner, {**difference, "request_id": request_id}, item("line:f.csv/7", "missing_here"))
    item_id = difference["item_id"]
    sqlstate, message = await refusal(accept(people.bob, item_id))
    assert (sqlstate, "nobody has explained it" in message) == ("PD005", True)
    await explain(people.alice, item_id)
    await explain(people.alice, item_id, "their ticket 4711")
    # The database knows who they are, whatever they say.
    sqlstate, message = await refusal(accept(people.alice, item_id, by=BOB))
    assert (sqlstate, "database login test_reconciler has explained it" in message) == ("PD005", True)
    await accept(people.bob, item_id)
    assert item_id not in await open_items(harness.owner)
    for again in (accept(people.bob, item_id), explain(people.alice, item_id)):
        sqlstate, message = await refusal(again)
        assert (sqlstate, f"{BOB} accepted it at " in message) == ("PD005", True), message
    await finished_run(harness.owner, difference)
    assert item_id not in await open_items(harness.owner)
    changed = item("request:1", ours=1300)
    await finished_run(harness.owner, difference | changed)
    assert changed["item_id"] in await open_items(harness.owner)

    rows = await harness.owner.fetch("select * from predictu_dispatch.intervention order by done_at")
    assert [(row["action"], row["done_by"], row["database_role"]) for row in rows] == [
        ("explain", ALICE, "test_reconciler"),
        ("explain", ALICE, "test_reconciler"),
        ("accept", BOB, "test_second_reconciler"),
    ]
    assert {(row["request_id"], row["bet_id"]) for row in rows} == {(request_id, "b1")}
    states = [(json.loads(row["before"])["state"], json.loads(row["after"])["state"]) for row in rows]
    assert states == [("open", "explained"), ("explained", "explained"), ("explained", "accepted")]
    for row in rows:
        for recorded in (json.loads(row["before"]), json.loads(row["after"])):
            assert recorded.items() >= {
                ("item_id", str(item_id)),
                ("key", "request:1"),
                ("class", "missing_there"),
                ("currency", "EUR"),
                ("disputed", 1250),
            }
            assert recorded["amounts"] == [{"currency": "EUR", "day": str(DAY), "ours": 1250, "theirs": 0}]


async def test_only_what_is_open_can_be_explained_or_accepted(harness: Harness, people: People) -> None:
    gone, counted, still = item("request:1"), item("request:2", "in_flight"), item("request:3")
    await finished_run(harness.owner, gone, counted, still)
    await finished_run(harness.owner, counted, still)
    for action in (explain, accept):
        for item_id, phrase in (
            (gone["item_id"], "it is not open, because a run after "),
            (counted["item_id"], "it is in_flight, which is no difference"),
            (uuid.uuid4(), f"operator '{OPERATOR}' has no such difference"),
            (None, "of NULL is refused"),
        ):
            sqlstate, message = await refusal(action(people.alice, item_id))
            assert (sqlstate, phrase in message) == ("PD005", True), message
        for reason, by in ((" ", ALICE), (None, ALICE), ("x" * 501, ALICE), ("a reason", ""), ("a reason", None)):
            assert (await refusal(action(people.alice, still["item_id"], reason, by)))[0] == "PD003"
        for login in (harness.person, harness.daemon, harness.producer):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await action(login, still["item_id"])
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.intervention") == 0


async def test_a_run_does_not_open_what_is_being_accepted(harness: Harness, people: People) -> None:
    """It waits for the acceptance, and sees it."""
    difference = item("request:1")
    await finished_run(harness.owner, difference)
    await explain(people.alice, difference["item_id"])
    async with people.bob.transaction():
        await accept(people.bob, difference["item_id"])
        run = asyncio.create_task(finished_run(harness.owner, difference))
        await until_blocked(people.bob, harness.owner)
    await run
    assert await open_items(harness.owner) == set()


async def test_two_runs_that_end_at_once_leave_the_differences_of_the_later_one(
    harness: Harness, database: Database
) -> None:
    """It waits for the other one, whose items it would not see."""
    first, second = item("request:1"), item("request:2")
    async with connected(database.owner, 1) as [other]:
        async with harness.owner.transaction():
            await finished_run(harness.owner, first)
            later = asyncio.create_task(finished_run(other, second))
            await until_blocked(harness.owner, other)
        await later
    assert await open_items(harness.owner) == ids(second)


async def test_an_open_transaction_refuses_the_next_person_instead_of_waiting_for_it(
    harness: Harness, people: People
) -> None:
    difference = item("request:1")
    await finished_run(harness.owner, difference)
    async with people.alice.transaction():
        await explain(people.alice, difference["item_id"])
        sqlstate, message = await refusal(explain(people.bob, difference["item_id"]))
    assert (sqlstate, f"a difference of operator '{OPERATOR}' is locked" in message) == ("PD006", True)


async def test_what_is_said_of_a_difference_names_it_and_old_actions_still_name_a_callback(harness: Harness) -> None:
    """Also in rows that no function of ours writes."""
    for action, request_id, before in (
        ("explain", None, None),
        ("accept", uuid.uuid4(), {"state": "open"}),
        ("forget", uuid.uuid4(), {"item_id": "1"}),
        ("retry", None, {"item_id": "1"}),
        ("pause", uuid.uuid4(), {}),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await _insert(harness.owner, action, request_id, before)
    await _insert(harness.owner, "explain", None, {"item_id": "1"})
    await _insert(harness.owner, "retry", uuid.uuid4(), None)


async def _insert(owner: Connection, action: str, request_id: uuid.UUID | None, before: Any) -> None:
    await owner.execute(
        "insert into predictu_dispatch.intervention (operator_id, request_id, action, reason, done_by, before)"
        " values ($1, $2, $3, 'a reason', 'alice', $4)",
        *(OPERATOR, request_id, action, None if before is None else json.dumps(before)),
    )


async def test_retention_removes_old_runs_without_open_differences_and_keeps_what_was_said(
    harness: Harness, database: Database, people: People
) -> None:
    day = LONG_AGO.date()
    await harness.place("b-held")
    replaced, still, held = (
        item("request:1", day=day),
        item("request:2", day=day + timedelta(days=1)),
        item("request:3", bet_id="b-held"),
    )
    runs = {
        "old": await finished_run(harness.owner, item("request:0", "in_flight"), first=day - timedelta(days=1)),
        "replaced": await finished_run(harness.owner, replaced, first=day),
        "open": await finished_run(harness.owner, still, first=day + timedelta(days=1)),
        "held": await finished_run(harness.owner, held | {"class": "in_flight"}, first=day),
        "other": await finished_run(harness.owner, first=day, operator_id=DISABLED),
        "of an old period, but not old": await finished_run(harness.owner, first=day - timedelta(days=9)),
    }
    await explain(people.alice, still["item_id"])
    for name, run in runs.items():
        await harness.owner.execute(
            "update predictu_dispatch.reconciliation_run set started_at = $2, finished_at = $3 where run_id = $1",
            *(run, LONG_AGO, RECENTLY if name.endswith("not old") else LONG_AGO),
        )
    await harness.owner.execute(
        "insert into predictu_dispatch.legal_hold (operator_id, bet_id, reason) values ($1, 'b-held', 'case 1')",
        OPERATOR,
    )
    result = await run_retention(database)
    assert (result.is_complete, result.runs) == (True, 3)
    left = {
        row["run_id"] for row in await harness.owner.fetch("select run_id from predictu_dispatch.reconciliation_run")
    }
    assert {name for name, run in runs.items() if run in left} == {"open", "held", "of an old period, but not old"}
    assert await open_items(harness.owner) == ids(still)
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.intervention") == 1


YEARS = f"""
    set session_replication_role = replica;
    insert into predictu_dispatch.reconciliation_run
        (operator_id, first_day, last_day, time_zone, day_starts, day_edges, settle_s, no_end_days, cut_at, done_by,
         finished_at)
    select '{OPERATOR}', day, day, 'UTC', '00:00', array[day, day + interval '1 day'], 900, 90, day, 'alice', day
      from generate_series(timestamptz '2020-01-01', '2025-06-22', interval '1 day') as day;
    insert into predictu_dispatch.reconciliation_item
        (operator_id, run_id, item_id, key, class, currency, day, amounts, lines, disputed)
    select r.operator_id, r.run_id, gen_random_uuid(), 'request:' || gen_random_uuid(), 'missing_there', 'EUR',
           r.first_day, '[]', '[]', 1
      from predictu_dispatch.reconciliation_run r cross join generate_series(1, 5);
    insert into predictu_dispatch.intervention (operator_id, action, reason, done_by, before)
    select i.operator_id, 'accept', 'paid', 'bob', jsonb_build_object('item_id', i.item_id)
      from predictu_dispatch.reconciliation_item i;
    set session_replication_role = origin;
    analyze;
"""  # noqa: S608 - of a constant
GROWING = {"reconciliation_run", "reconciliation_item", "intervention"}


async def test_years_of_nightly_runs_are_not_read_for_what_is_open(harness: Harness) -> None:
    """Neither for the list and a callback's line nor for a person's action."""
    await harness.owner.execute(YEARS)
    difference = item("request:1")
    await finished_run(harness.owner, difference)
    for name, arguments in (
        ("reconciliation_list", (None, None, False, 100)),
        ("reconciliation_sums", (None, None)),
        ("reconciliation_of_callback", (OPERATOR, uuid.uuid4(), "b1")),
        ("reconciliation_item", (OPERATOR, difference["item_id"])),
        ("reconciliation_history", (OPERATOR, difference["item_id"])),
        ("reconciliation_ids", (uuid.UUID(int=0), uuid.UUID(int=1), None, 20)),
    ):
        plan = await harness.owner.fetchval(f"explain (format json) {query(name)}", *arguments)
        assert GROWING & set(_scanned(json.loads(plan)[0]["Plan"])) == set(), name


def _scanned(node: dict[str, Any]) -> Iterator[str]:
    """The tables that are read from beginning to end."""
    if node["Node Type"] == "Seq Scan":
        yield node["Relation Name"]
    for child in node.get("Plans", ()):
        yield from _scanned(child)
