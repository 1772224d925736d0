"""No statement of the hot path scans a whole table, with a million callbacks of history."""

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import (
    OPERATOR,
    Connection,
    Harness,
    claim,
    delivered,
    enqueue,
    open_harness,
    placement_params,
    rejected,
    retried,
    settle,
    settle_one,
)
from tests.support.postgres import Database, Server, cloned_database

BETS = 500_000
LARGE = {"bet", "callback", "attempt_default"}
# Without most triggers and with consecutive ids, because it would take minutes otherwise.
HISTORY = f"""
    set session_replication_role = replica;
    insert into predictu_dispatch.bet
        (operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id)
    select '{OPERATOR}', 'old-' || to_char(n, '000000'), 'closed', 'p-1', 'EUR', 500,
           lpad(to_hex(2 * n), 32, '0')::uuid, lpad(to_hex(2 * n + 1), 32, '0')::uuid
      from generate_series(1, {BETS}) n;
    insert into predictu_dispatch.callback
        (operator_id, request_id, method, bet_id, lane, state, effect, attempts, params, operator_transaction_id,
         created_at, due_at, finished_at)
    select operator_id, id, method, bet_id, lane, 'delivered', 'applied', 1, params::jsonb, 'tx',
           done + ('x' || right(id::text, 8))::bit(32)::integer * interval '1 millisecond', done, done
      from predictu_dispatch.bet
     cross join lateral (
         values (placement_request_id, 'BET_MAKE', 'interactive', '{{}}'),
                (terminal_request_id, 'BET_WIN', 'settlement', '{{"currency": "EUR", "amount": 500}}')
     ) of_bet (id, method, lane, params)
     cross join cast('2020-01-02' as timestamptz) done;
    insert into predictu_dispatch.attempt_record (operator_id, request_id, method, attempt, evidence, verdict, instance,
                                           started_at, finished_at, report_id)
    select operator_id, request_id, method, 1, 'answered', 'delivered', 'host-1', due_at, due_at, request_id
      from predictu_dispatch.callback;
    set session_replication_role = origin;
    analyze;
"""  # noqa: S608 - of constants
EXPLAINING = """
    load 'auto_explain';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on;
    set auto_explain.log_format = json;
    set auto_explain.log_level = notice;
"""


@pytest.fixture
async def old_harness(postgres: Server, template: str) -> AsyncIterator[Harness]:
    """A database with a million finished callbacks and their audit rows."""
    database: Database
    async with cloned_database(postgres, template) as database, open_harness(database) as harness:
        await harness.owner.execute(HISTORY, timeout=170)
        yield harness


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, table) of each scan of a plan."""
    if "Relation Name" in plan:
        yield plan["Node Type"], plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from scans(part)


async def explained(owner: Connection) -> list[dict[str, Any]]:
    """A list to which the plan of each later statement of this connection is added."""
    plans: list[dict[str, Any]] = []

    def note(_: object, message: Any) -> None:
        _, _, plan = message.message.partition("plan:\n")
        if plan:
            plans.append(json.loads(plan))

    await owner.execute(EXPLAINING)
    owner.add_log_listener(note)
    return plans


def compared(plan: dict[str, Any]) -> int:
    """Number of row pairs that its joins discarded."""
    here: int = plan.get("Rows Removed by Join Filter", 0) * plan["Actual Loops"]
    return here + sum(compared(part) for part in plan.get("Plans", ()))


async def test_no_statement_of_the_hot_path_scans_a_whole_table(old_harness: Harness) -> None:
    harness = old_harness
    owner = harness.owner
    plans = await explained(owner)
    # As the owner, whose session may explain, and often enough for generic plans.
    for turn in range(7):
        for n in range(4):
            await enqueue(owner, "BALANCE", {"player_id": "p-1", "currency": "EUR"})
            await enqueue(owner, "BET_MAKE", placement_params(f"b{turn}-{n}"))
        leases = {lease["bet_id"]: lease for lease in await claim(owner, lanes=("interactive",))}
        assert await settle_one(owner, delivered(leases[f"b{turn}-3"]))
        outcomes = (delivered, rejected, retried)
        await settle(
            owner, *(came_to(leases[f"b{turn}-{n}"]) for n, came_to in enumerate(outcomes)), delivered(leases[None])
        )
        await owner.fetch("select predictu_dispatch.rollback_bet($1, $2, 'no trade')", OPERATOR, f"b{turn}-0")
        await settle(owner, *map(delivered, await claim(owner)))
        await owner.fetch(
            "select * from predictu_dispatch.outcome($1, $2)", OPERATOR, leases[f"b{turn}-0"]["request_id"]
        )
        await owner.fetch(query("expire"), 20)
        await owner.fetch(query("expired_leases"), 500, 0.0, "a")
        await owner.fetch(query("backlog"))
        await owner.execute("update predictu_dispatch.maintenance_chore set due_at = now()")
        await owner.fetch(query("fleet_figures"), "a")

    assert await owner.fetchval("select count(*) from predictu_dispatch.bet where state = 'closed'") > BETS
    assert len(plans) > 100
    read = {(kind, table) for plan in plans for kind, table in scans(plan["Plan"])}
    assert {table for _, table in read} >= {"bet", "callback", "attempt_default"}
    whole = {(kind, table) for kind, table in read if "Seq Scan" in kind and table in LARGE}
    named = [plan["Query Text"] for plan in plans if whole & set(scans(plan["Plan"]))]
    # Except the test's own count.
    assert [text for text in named if "select count(*) from predictu_dispatch.bet where" not in text] == []


def rows_read(plan: dict[str, Any]) -> int:
    """Number of rows that a plan's scans read of the large tables, also those that it discarded."""
    here = 0
    if plan.get("Relation Name") in LARGE:
        here = round((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    return here + sum(rows_read(part) for part in plan.get("Plans", ()))


async def test_no_search_reads_more_than_its_page(old_harness: Harness) -> None:
    """One player has all bets, one amount and one time; each statement of find and show."""
    owner = old_harness.owner
    bet = await owner.fetchrow("select * from predictu_dispatch.bet where bet_id = 'old- 000100'")
    assert bet is not None
    operators, whole, first = [OPERATOR, "op_off"], uuid.UUID(int=0), bet["placement_request_id"]
    window: tuple[Any, ...] = (None, None, None, None, None)
    later = (None, None, bet["created_at"], OPERATOR, bet["bet_id"])
    limit, slack = 21, 500
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("find_operators", (None, ["bet_placed"])),
        ("find_currencies", (operators,)),
        ("find_oldest_bet", (operators,)),
        *(("find_bets_by_player", (operators, key, *w, limit)) for key in ("p-1", "p-2") for w in (window, later)),
        *(("find_bets_by_time", (operators, None, *w, limit)) for w in (window, later)),
        ("find_bets_by_id", (operators, bet["bet_id"], *window, limit)),
        ("find_bets_by_amount", (operators, ["EUR"] * 2, [500] * 2, *window, limit)),
        ("find_bets_by_amount", ([OPERATOR], ["EUR"], [501], *window, limit)),
        ("find_by_transaction", (operators, "tx", *window, limit)),
        ("find_rows_of_bets", ([OPERATOR] * 20, [f"old- {n:06}" for n in range(20)], None, None, 120)),
        ("find_rows_of_requests", ([OPERATOR], [first], "delivered", "BET_MAKE", 120)),
        ("requests_with_beginning", (whole, uuid.UUID(int=2**80), None, limit)),
        ("requests_with_beginning", (first, first, None, limit)),
        ("removed_with_beginning", (whole, uuid.UUID(int=2**80), None)),
        ("show_callbacks", (first, OPERATOR)),
        ("show_money", (OPERATOR, bet["bet_id"])),
        ("show_bet", (OPERATOR, bet["bet_id"])),
        ("show_bet_requests", (OPERATOR, bet["bet_id"])),
        ("show_attempts", (OPERATOR, first)),
    ]
    plans = await explained(owner)
    await owner.execute("set auto_explain.log_analyze = on")
    for name, arguments in calls:
        plans.clear()
        await owner.fetch(query(name), *arguments)
        await owner.fetchval("select 1")
        plans[:] = [plan for plan in plans if plan["Query Text"] == query(name)]
        assert plans, name
        for plan in plans:
            assert not any("Seq Scan" in kind and table in LARGE for kind, table in scans(plan["Plan"])), (name, plan)
            assert rows_read(plan["Plan"]) <= slack, (name, rows_read(plan["Plan"]), plan)


async def test_a_heartbeat_with_hundreds_of_operators_has_no_quadratic_join(harness: Harness) -> None:
    owner, count = harness.owner, 300
    operator_ids = [f"op_{number}" for number in range(count)]
    await owner.execute(
        "insert into predictu_dispatch.operator"
        "    (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)"
        " select id, true, 15, 0, '' from unnest($1::text[]) id",
        operator_ids,
    )
    plans = await explained(owner)
    await owner.execute("set auto_explain.log_analyze = on")
    for _ in range(7):
        shares = await owner.fetch(
            query("heartbeat"),
            *("host-1", uuid.UUID(int=1), "host", 1, "1", operator_ids),
            *([16] * count, [16] * count, [0.0] * count, [8] * count, [8] * count, [None] * count, 1, None, None, None),
        )
        assert len(shares) == count
    assert max(compared(plan["Plan"]) for plan in plans) <= 2 * count


async def test_a_callback_moves_within_its_page_and_at_the_end_of_its_row(harness: Harness) -> None:
    """Otherwise Postgres logs the whole row each time."""
    places = (
        "select request_id, (ctid::text::point)[0] as page, to_json(c) as columns from predictu_dispatch.callback c"
    )
    for n in range(100):
        await enqueue(harness.owner, "BALANCE", {"player_id": f"p-{n}", "currency": "EUR"})
    before = {row["request_id"]: row for row in await harness.owner.fetch(places)}
    moved = set()
    for _ in range(10):
        await settle(harness.daemon, *(delivered(one, balance=1) for one in await claim(harness.daemon, slots=10)))
    after = {row["request_id"]: row for row in await harness.owner.fetch(places)}
    assert sum(row["page"] == before[request_id]["page"] for request_id, row in after.items()) > 90
    columns = list(json.loads(next(iter(after.values()))["columns"]))
    for request_id, row in after.items():
        old, new = json.loads(before[request_id]["columns"]), json.loads(row["columns"])
        moved |= {name for name in columns if new[name] != old[name]}
    assert moved >= {"state", "attempts", "leased_at", "finished_at", "balance"}
    assert moved & set(columns[: columns.index("due_at")]) == set()
