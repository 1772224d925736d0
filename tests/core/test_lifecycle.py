"""The triggers allow exactly the moves of core/specification.py, also to the owner of the tables.

The functions that move a bet are tested in tests/sql/test_bets.py.
"""

import itertools
import json
import uuid
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState
from predictu_dispatch.core.methods import RULES, Method
from predictu_dispatch.core.specification import CALLBACK_MOVES, bet_moves
from tests.support.harness import OPERATOR, Connection, Harness, delivered, retried

REFUSED_BY_A_TRIGGER = "PD900"


# Callbacks: every pair of states against the triggers


async def insert_bet(owner: Connection, state: str, placement: uuid.UUID, terminal: uuid.UUID | None) -> None:
    await owner.execute(
        "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
        " placement_request_id, terminal_request_id) values ($1, 'b1', $2, 'p1', 'EUR', 500, $3, $4)",
        *(OPERATOR, state, placement, terminal),
    )


async def insert_callback(
    owner: Connection, request_id: uuid.UUID, method: str, state: str, effect: str | None = None
) -> None:
    """Insert a callback in this state, with what the guard requires; a failed one needs review."""
    if effect is None:
        effect = "applied" if state == "delivered" else "none"
    attempts = 0 if state in ("waiting", "ready", "cancelled") else 1
    await owner.execute(
        "insert into predictu_dispatch.callback"
        " (operator_id, request_id, method, bet_id, lane, state, effect, attempts, params, lease_until, finished_at,"
        " review_since) values ($1, $2, $3, $4, $5, $6, $7, $8, '{}', $9::text::timestamptz, $10::text::timestamptz,"
        " $11::text::timestamptz)",
        *(OPERATOR, request_id, method, None if method in ("PING", "BALANCE") else "b1", RULES[Method(method)].lane),
        *(state, effect, attempts, "infinity" if state == "in_flight" else None),
        *("2026-01-01" if state in FINAL else None, "2026-01-01" if state in ("rejected", "exhausted") else None),
    )


async def is_refused(owner: Connection, statement: str, *args: Any) -> bool:
    """Return whether a trigger refuses the statement, which is rolled back; other errors raise."""
    attempt = owner.transaction()
    await attempt.start()
    try:
        await owner.execute(statement, *args)
    except asyncpg.PostgresError as error:
        await attempt.rollback()
        if error.sqlstate != REFUSED_BY_A_TRIGGER:
            raise
        return True
    await attempt.rollback()
    return False


MOVE = """
update predictu_dispatch.callback
   set state = $2, lease_until = case $2 when 'in_flight' then 'infinity'::timestamptz end,
       finished_at = case when $2 in ('delivered', 'rejected', 'exhausted', 'cancelled') then now() end,
       effect = case $2 when 'delivered' then 'applied' else effect end,
       review_since = case when $2 in ('rejected', 'exhausted', 'cancelled') then review_since end,
       attempts = attempts + (state = 'ready' and $2 = 'in_flight')::integer
 where request_id = $1"""


LOST_WIN = {
    "operator_id": OPERATOR,
    "request_id": str(uuid.UUID(int=1)),
    "method": "BET_WIN",
    "bet_id": "b1",
    "params": {},
    "lane": "settlement",
    "created_at": "2026-01-01",
    "due_at": "2026-01-01",
    "budget_from": 0,
    "attempts": 1,
    "state": "exhausted",
    "effect": "unknown",
    "finished_at": "2026-01-01",
    "review_since": "2026-01-01",
    "retry_stopped": False,
}
CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"method": "BET_CASHOUT"}, "its method is unknown"),
    ({"bet_id": None}, "PING and BALANCE have no bet_id"),
    ({"method": "BALANCE", "lane": "interactive"}, "PING and BALANCE have no bet_id"),
    ({"lane": "interactive"}, "other lane"),
    ({"method": "BET_ROLLBACK"}, "other lane"),
    ({"state": "lost"}, "its state is unknown"),
    ({"effect": "some"}, "its effect is unknown"),
    ({"amount_format": "cents"}, "its amount_format is unknown"),
    ({"method": "BET_MAKE", "lane": "interactive", "state": "waiting", "finished_at": None}, "is never waiting"),
    ({"state": "in_flight", "finished_at": None}, "lease_until must be set"),
    ({"lease_until": "2026-01-01"}, "lease_until must be set"),
    ({"finished_at": None}, "finished_at must be set"),
    ({"state": "ready"}, "finished_at must be set"),
    ({"state": "rejected", "attempts": 0}, "it was never attempted"),
    ({"state": "delivered", "review_since": None}, "its effect is applied"),
    ({"budget_from": 2}, "between 0 and attempts"),
    ({"budget_from": -1}, "between 0 and attempts"),
    ({"state": "delivered", "effect": "applied"}, "review_since must be null"),
    ({"state": "cancelled"}, "it was attempted, so it is never cancelled"),
]


@pytest.mark.parametrize(("change", "fault"), CONTRADICTIONS, ids=lambda one: str(one)[:40])
async def test_a_callback_whose_columns_contradict_each_other_is_refused(
    harness: Harness, change: dict[str, Any], fault: str
) -> None:
    insert = """
        insert into predictu_dispatch.callback
        select * from jsonb_populate_record(null::predictu_dispatch.callback, $1)"""
    await insert_bet(harness.owner, "closing", uuid.uuid4(), uuid.UUID(int=1))
    with pytest.raises(asyncpg.PostgresError, match=fault) as refused:
        await harness.owner.execute(insert, json.dumps(LOST_WIN | change))
    assert refused.value.sqlstate == REFUSED_BY_A_TRIGGER
    await harness.owner.execute(insert, json.dumps(LOST_WIN))


async def test_a_replica_session_is_guarded_too(harness: Harness) -> None:
    """It skips common triggers, and could not skip CHECK constraints either."""
    request_id = await harness.place()
    await harness.owner.execute("set session_replication_role = replica")
    with pytest.raises(asyncpg.PostgresError, match="its state is unknown"):
        await harness.owner.execute(MOVE, request_id, "lost")
    assert await is_refused(harness.owner, MOVE, request_id, "delivered")
    assert not await is_refused(harness.owner, MOVE, request_id, "in_flight")


@pytest.mark.parametrize("method", Method)
async def test_a_callback_makes_exactly_the_listed_moves(harness: Harness, method: Method) -> None:
    owner, made = harness.owner, set()
    never_waits = method in (Method.PING, Method.BALANCE, Method.BET_MAKE)
    for old, new in itertools.permutations(CallbackState, 2):
        if never_waits and old is CallbackState.WAITING:
            continue  # The guard refuses that state.
        request_id = uuid.uuid4()
        transaction = owner.transaction()
        await transaction.start()
        await insert_bet(owner, "placing" if method is Method.BET_MAKE else "closing", uuid.uuid4(), request_id)
        await insert_callback(owner, request_id, method, old)
        if not await is_refused(owner, MOVE, request_id, new):
            made.add((old, new))
        await transaction.rollback()
    retries = {(CallbackState.REJECTED, CallbackState.READY), (CallbackState.EXHAUSTED, CallbackState.READY)}
    waits = {move for move in CALLBACK_MOVES if CallbackState.WAITING in move}
    assert made == set(CALLBACK_MOVES) - (retries | waits if never_waits else set())


@pytest.mark.parametrize("state", [CallbackState.REJECTED, CallbackState.EXHAUSTED])
async def test_a_callback_that_is_off_the_review_list_is_never_retried(harness: Harness, state: CallbackState) -> None:
    """It was resolved by other means: sending it would pay twice."""
    owner, request_id = harness.owner, uuid.uuid4()
    await insert_bet(owner, "closing", uuid.uuid4(), request_id)
    await insert_callback(owner, request_id, "BET_WIN", state)
    assert not await is_refused(owner, MOVE, request_id, "ready")
    await owner.execute("update predictu_dispatch.callback set review_since = null")
    assert await is_refused(owner, MOVE, request_id, "ready")


async def test_a_callback_that_was_attempted_is_never_cancelled(harness: Harness) -> None:
    """Another terminal of its bet may replace only a callback that was certainly never sent."""
    await harness.attempt(await harness.place(), delivered)
    win = await harness.end("BET_WIN")
    await harness.attempt(win, retried)
    with pytest.raises(asyncpg.PostgresError, match="it was attempted, so it is never cancelled"):
        await harness.owner.execute(MOVE, win, "cancelled")


async def test_effect_only_ever_moves_from_none_to_unknown_to_applied(harness: Harness) -> None:
    owner, made = harness.owner, set()
    for old, new in itertools.permutations(("none", "unknown", "applied"), 2):
        async with owner.transaction():
            request_id = uuid.uuid4()
            await insert_callback(owner, request_id, "BALANCE", "in_flight", old)
            if not await is_refused(
                owner, "update predictu_dispatch.callback set effect = $2 where request_id = $1", request_id, new
            ):
                made.add((old, new))
    assert made == {("none", "unknown"), ("none", "applied"), ("unknown", "applied")}


async def test_identity_and_content_of_a_callback_never_change(harness: Harness) -> None:
    """Every attempt must send the same bytes, and the attempt number fences a report."""
    placement = await harness.place()
    await harness.attempt(placement, delivered)
    win = await harness.end("BET_WIN")
    await harness.attempt(win, retried)
    changes = (
        "operator_id = 'op_other'",
        "request_id = gen_random_uuid()",
        "method = 'BET_SELL'",
        "bet_id = 'b2'",
        "bet_id = null",
        "lane = 'interactive'",
        "params = params || '{\"amount\": 501}'",
        "params = params || '{\"amount\": 500.0}'",  # Equal as a number, but not the same bytes.
        "created_at = created_at + interval '1 microsecond'",
        "attempts = attempts + 1",
        "attempts = attempts - 1",
        "amount_format = 'decimal'",
        "amount_format = null",
    )
    for change in changes:
        statement = f"update predictu_dispatch.callback set {change} where request_id = $1"  # noqa: S608 - the list above
        assert await is_refused(harness.owner, statement, win), change


async def test_a_placement_whose_retries_were_stopped_is_never_retried(harness: Harness) -> None:
    placement = await harness.place()
    await harness.lease(placement)
    await harness.rollback()
    assert await is_refused(
        harness.owner, "update predictu_dispatch.callback set retry_stopped = false where request_id = $1", placement
    )


CLEARED = """
    alter table predictu_dispatch.callback disable trigger callback_deleted_when_final;
    alter table predictu_dispatch.bet disable trigger bet_deleted_when_final;
    delete from predictu_dispatch.callback;
    delete from predictu_dispatch.bet;
"""
"""Disables the triggers that refuse to delete unfinished rows, also for a replica."""


# Bets: every pair of states, and every state against its callbacks


async def test_a_bet_makes_exactly_the_listed_moves(harness: Harness) -> None:
    owner, made = harness.owner, set()
    for trigger in ("bet_matches_callbacks", "bet_deleted_when_final"):
        await owner.execute(f"alter table predictu_dispatch.bet disable trigger {trigger}")
    for old, new in itertools.permutations(BetState, 2):
        async with owner.transaction():
            await owner.execute("delete from predictu_dispatch.bet")
            await insert_bet(owner, old, uuid.uuid4(), uuid.uuid4())
            if not await is_refused(owner, "update predictu_dispatch.bet set state = $1", new):
                made.add((old, new))
    assert made == bet_moves()


async def test_the_terms_of_a_bet_never_change(harness: Harness) -> None:
    await insert_bet(harness.owner, "open", uuid.uuid4(), None)
    changes = (
        "operator_id = 'op_other'",
        "bet_id = 'b2'",
        "player_id = 'p2'",
        "currency = 'USD'",
        "amount = 501",
        "placement_request_id = gen_random_uuid()",
    )
    for change in changes:
        assert await is_refused(harness.owner, f"update predictu_dispatch.bet set {change}"), change  # noqa: S608


def bet_may_be(bet: str, placement: str | None, terminal: str | None, effect: str) -> bool:
    """Say whether a bet may be in this state with these callbacks.

    No debit after it closes, no credit before it opens, and void means no debit.
    """
    placement_may_go = placement in ("ready", "in_flight")
    terminal_may_go = terminal not in (None, "waiting", "cancelled")
    return {
        "placing": not terminal_may_go,
        "open": placement in (None, "delivered") and not terminal_may_go,
        "closing": not placement_may_go,
        "closed": not placement_may_go and terminal == "delivered",
        "void": not placement_may_go and effect == "none" and not terminal_may_go,
    }[bet]


async def test_a_bet_is_only_in_a_state_that_its_callbacks_allow(harness: Harness) -> None:
    owner, allowed, expected = harness.owner, set(), set()
    placements: list[tuple[str | None, str]] = [
        (None, "none"),
        *((state, "applied" if state == "delivered" else "none") for state in CallbackState),
    ]
    placements += [("rejected", "unknown"), ("exhausted", "unknown")]
    terminals = [None, *CallbackState]
    await owner.execute("alter table predictu_dispatch.bet disable trigger bet_move")
    for (placement, effect), terminal in itertools.product(placements, terminals):
        if placement == "waiting":
            continue  # The guard refuses that state of a placement.
        async with owner.transaction():
            # As a replica any combination can be made; the move is then tried with all triggers.
            await owner.execute("set local session_replication_role = replica")
            await owner.execute(CLEARED)
            placement_id, terminal_id = uuid.uuid4(), uuid.uuid4()
            await insert_bet(owner, "placing", placement_id, terminal_id)
            if placement is not None:
                await insert_callback(owner, placement_id, "BET_MAKE", placement, effect)
            if terminal is not None:
                await insert_callback(owner, terminal_id, "BET_WIN", terminal)
            await owner.execute("set local session_replication_role = origin")
            for bet in BetState:
                row = (bet.value, placement, terminal, effect)
                if not await is_refused(owner, "update predictu_dispatch.bet set state = $1", bet):
                    allowed.add(row)
                if bet_may_be(*row):
                    expected.add(row)
    assert allowed == expected


async def test_a_callback_becomes_ready_only_in_the_matching_state_of_its_bet(harness: Harness) -> None:
    owner = harness.owner
    insert = (
        "insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, params)"
        " values ($1, gen_random_uuid(), $2, 'b1', $3, 'ready', '{}')"
    )
    for bet in BetState:
        terminal = uuid.uuid4()
        async with owner.transaction():
            await owner.execute("set local session_replication_role = replica")
            await owner.execute(CLEARED)
            await insert_bet(owner, bet, uuid.uuid4(), terminal)
            await insert_callback(owner, terminal, "BET_WIN", "waiting")
            await owner.execute("set local session_replication_role = origin")
            assert await is_refused(owner, MOVE, terminal, "ready") is (bet != "closing")
            assert await is_refused(owner, insert, OPERATOR, "BET_MAKE", "interactive") is (bet != "placing")
            await owner.execute("update predictu_dispatch.callback set state = 'cancelled', finished_at = now()")
            assert await is_refused(owner, insert, OPERATOR, "BET_SELL", "settlement") is (bet != "closing")
