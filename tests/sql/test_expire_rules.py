"""The rule of deadlines is written twice: expire() and expire_one() store the same rows."""

import itertools
import uuid
from typing import Any

from predictu_dispatch.core.lifecycle import FINAL, CallbackState
from predictu_dispatch.core.methods import RULES, Method
from tests.support.harness import Connection, Harness

OPERATORS = {
    "well": (False, "closed"),
    "open": (False, "open"),
    "half_open": (False, "half_open"),
    "paused": (True, "closed"),
    "paused_open": (True, "open"),
}
"""Whether each operator is paused, and its circuit."""
EXPIRIES = {"none": None, "past": "2020-01-01", "future": "2100-01-01"}
PAUSED = "2026-01-01"

_OPERATOR = (
    "insert into predictu_dispatch.operator (operator_id, enabled, interactive_deadline_s, settlement_deadline_s,"
    " config_fingerprint, circuit, paused_at, paused_by, pause_reason)"
    " select $1, true, 15, 0, 'f', $2, p.at::timestamptz, p.text, p.text"
    "   from (select $3::text as at, case when $3::text is not null then 'test' end as text) p"
)
_BET = (
    "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
    " placement_request_id, terminal_request_id) values ($1, $2, $3, 'p1', 'EUR', 500, $4, $5)"
)
_CALLBACK = (
    "insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, effect, attempts,"
    " params, expires_at, lease_until, finished_at) select $1, $2, $3, $4, $5, $6, $7, $8, '{}',"
    " $9::text::timestamptz, case when $6 = 'in_flight' then timestamptz '2100-01-01' end,"
    " case when $10 then timestamptz '2026-01-01' end"
)

_CHANGES = (
    "select operator_id, method, lane, state, reason, cause, attempt,"
    # A rollback gets a random id.
    " case when cause <> 'rolled_back' then request_id end as request_id from predictu_dispatch."
)
_EXPIRE = _CHANGES + "expire(100000)"
_EXPIRE_ONE = _CHANGES + "expire_one($1, $2)"


def bet_state(method: Method, state: CallbackState, effect: str) -> str:
    """The state that advance_bets() leaves a bet in whose last callback is in this state."""
    if method is Method.BET_MAKE:
        match state:
            case CallbackState.READY | CallbackState.IN_FLIGHT:
                return "placing"
            case CallbackState.DELIVERED:
                return "open"
            case _:
                return "void" if effect == "none" else "closing"
    ends = {CallbackState.WAITING: "placing", CallbackState.DELIVERED: "closed", CallbackState.CANCELLED: "open"}
    return ends.get(state, "closing")


async def make_everything(owner: Connection) -> list[tuple[str, uuid.UUID]]:
    """Each method in each state, attempted or not, with each deadline, of each operator.

    A placement has no terminal, or one that waits. As a replica, to make any combination.
    """
    await owner.execute("set session_replication_role = replica")
    made: list[tuple[str, uuid.UUID]] = []
    numbers = itertools.count(1)

    async def insert(operator_id: str, method: Method, bet_id: str | None, *life: object) -> uuid.UUID:
        request_id = uuid.UUID(int=next(numbers))
        values = (operator_id, request_id, method, bet_id, RULES[method].lane, *life)
        await owner.execute(_CALLBACK, *values, life[0] in FINAL)
        made.append((operator_id, request_id))
        return request_id

    for operator_id, (is_paused, circuit) in OPERATORS.items():
        await owner.execute(_OPERATOR, operator_id, circuit, PAUSED if is_paused else None)
        for method, state, tried, expiry in itertools.product(
            Method, CallbackState, ((0, "none"), (1, "none"), (1, "unknown")), EXPIRIES.values()
        ):
            attempts, effect = tried
            if state is CallbackState.DELIVERED:
                effect = "applied"
            if (
                (state is CallbackState.WAITING and (attempts or method in ("PING", "BALANCE", "BET_MAKE")))
                or (state in ("in_flight", "delivered", "rejected") and not attempts)
                or (state is CallbackState.CANCELLED and attempts)
            ):
                continue
            callback = (state, effect, attempts, expiry)
            if method in (Method.PING, Method.BALANCE):
                await insert(operator_id, method, None, *callback)
                continue
            may_wait = method is Method.BET_MAKE and state in (CallbackState.READY, CallbackState.IN_FLIGHT)
            for waits in (None, Method.BET_WIN, Method.BET_ROLLBACK) if may_wait else (None,):
                bet_id = f"b{next(numbers)}"
                # Before its placement, so that it is not ready yet when expire_one() gets it.
                waiting = ("waiting", "none", 0, expiry)
                terminal = None if waits is None else await insert(operator_id, waits, bet_id, *waiting)
                request_id = await insert(operator_id, method, bet_id, *callback)
                other = uuid.UUID(int=next(numbers))
                if method is not Method.BET_MAKE:
                    ids: tuple[uuid.UUID, uuid.UUID | None] = (other, request_id)
                else:
                    ids = (request_id, terminal or (other if effect == "unknown" and state in FINAL else None))
                await owner.execute(_BET, operator_id, bet_id, bet_state(method, state, effect), *ids)
    await owner.execute("set session_replication_role = origin")
    return made


async def stored(owner: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """All bets and callbacks; of ids and times that the run chooses, only whether there is one."""
    return {
        table: [tuple(row) for row in await owner.fetch(f"{statement} order by 1, 2, 3, 4")]
        for table, statement in {
            "bet": "select operator_id, bet_id, state, currency, amount, placement_request_id,"
            " updated_at > created_at as is_moved from predictu_dispatch.bet",
            "callback": "select c.operator_id, c.bet_id, c.method, case when c.params = '{}' then c.request_id end,"
            " c.lane, c.state, c.reason, c.effect, c.attempts, c.budget_from, c.retry_stopped, c.note, c.expires_at,"
            " c.lease_until, c.leased_by, c.finished_at is not null, c.review_since is not null, c.amount_format,"
            " c.operator_status, c.params ->> 'amount', c.request_id = b.terminal_request_id"
            " from predictu_dispatch.callback c left join predictu_dispatch.bet b using (operator_id, bet_id)",
        }.items()
    }


async def test_expire_and_expire_one_end_the_same_callbacks_and_store_the_same_rows(harness: Harness) -> None:
    owner = harness.owner
    made = await make_everything(owner)
    before = await stored(owner)
    results = []
    for statement, arguments in ((_EXPIRE, [()]), (_EXPIRE_ONE, made)):
        transaction = owner.transaction()
        await transaction.start()
        changes = [tuple(row) for one in arguments for row in await owner.fetch(statement, *one)]
        results.append((sorted(changes, key=str), await stored(owner)))
        await transaction.rollback()
    (together, rows_together), (apart, rows_apart) = results
    assert together == apart
    for table, rows in rows_together.items():
        assert rows == rows_apart[table]
    assert rows_together["callback"] != before["callback"]
    # Every part of the rule was needed.
    assert {(change[1], change[4]) for change in together if change[5] == "settled"} == {
        *((method, "deadline") for method in Method),
        *((method, reason) for method in ("BALANCE", "BET_MAKE") for reason in ("circuit_open", "paused")),
    }
    assert {change[5] for change in together} == {"settled", "cancelled", "rolled_back", "released"}
