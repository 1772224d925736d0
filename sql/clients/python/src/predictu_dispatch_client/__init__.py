"""Places and ends bets through Predictu dispatch, inside your own transactions.

If your transaction is rolled back, nothing is enqueued. Choose the request_id before the
transaction begins: a call that is repeated with the same request_id and params counts once.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Literal, Protocol, TypedDict, TypeVar
from uuid import UUID

import asyncpg

T = TypeVar("T")
_FINAL = ("delivered", "rejected", "exhausted", "cancelled")
_WHY_EXHAUSTED = {
    "circuit_open": "the operator is down",
    "paused": "the operator is paused",
    "deadline": "the operator did not answer in time",
    "rolled_back": "it was rolled back",
}
_REPEATABLE = (  # Lost connections, and conflicts with other transactions.
    OSError,  # Includes TimeoutError.
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.TransactionRollbackError,  # Deadlock, serialization.
    asyncpg.InsufficientResourcesError,
    asyncpg.ProgramLimitExceededError,  # The notification queue was full.
    asyncpg.OperatorInterventionError,  # The server stops or starts.
    asyncpg.ReadOnlySQLTransactionError,  # After a failover: still connected to the old server.
)


class BetDetails(TypedDict):
    """What the player bought."""

    market_id: str
    outcome: str
    odds: float | None
    shares: float
    price: float


class Placement(TypedDict):
    """Params of BET_MAKE. Amounts are whole subunits here and everywhere: 12.50 EUR is 1250."""

    player_id: str
    currency: str
    amount: int
    bet_id: str
    bet: BetDetails


class Credit(TypedDict):
    """Params of BET_WIN, BET_SELL and BET_REFUND; a refund's amount is the whole debit."""

    player_id: str
    currency: str
    amount: int
    bet_id: str


class Loss(TypedDict):
    """Params of BET_LOSE."""

    player_id: str
    bet_id: str


class Connection(Protocol):
    """A connection in your transaction, or a pool for a call of its own."""

    async def fetchrow(self, query: str, /, *args: object) -> asyncpg.Record | None:
        """Returns the first row."""


class DispatchError(Exception):
    """The database refused the call: `sqlstate`, a message that names the value, and a hint."""

    code: ClassVar[str] = ""

    def __init__(self, message: str, sqlstate: str, hint: str | None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.hint = hint


class UnknownMethodError(DispatchError):
    """PD001."""

    code = "PD001"


class UnknownOperatorError(DispatchError):
    """PD002: the operator is unknown or disabled."""

    code = "PD002"


class BadParamsError(DispatchError):
    """PD003."""

    code = "PD003"


class RequestIdReusedError(DispatchError):
    """PD004: the request_id was used before, with other content."""

    code = "PD004"


class BetStateError(DispatchError):
    """PD005: the bet's state forbids the call."""

    code = "PD005"


class NotAllowedError(DispatchError):
    """PD008: the login may not act for this operator."""

    code = "PD008"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What is known of a callback."""

    state: Literal["waiting", "ready", "in_flight", "delivered", "rejected", "exhausted", "cancelled"]
    reason: str | None
    effect: Literal["none", "unknown", "applied"]
    operator_status: str | None
    operator_transaction_id: str | None
    balance: int | None
    finished_at: datetime | None


class NotDeliveredError(Exception):
    """The callback ended without the operator's confirmation; `reason` says why, in words."""

    def __init__(self, outcome: Outcome, consequence: str = "") -> None:
        if outcome.state == "rejected":
            why = f"the operator rejected it: {outcome.operator_status}"
        elif outcome.state == "cancelled":
            why = "it was cancelled before it was sent"
        else:
            why = _WHY_EXHAUSTED.get(outcome.reason or "", "the operator gave no valid answer")
        self.reason = why + consequence
        self.operator_status = outcome.operator_status
        self.effect = outcome.effect
        self.outcome = outcome
        super().__init__(self.reason)


class BetNotPlaced(NotDeliveredError):  # noqa: N818 - part of a bet's life, no fault
    """The bet was not placed. If `effect` is unknown, a debit is rolled back automatically."""

    def __init__(self, outcome: Outcome) -> None:
        is_unknown = outcome.effect == "unknown"
        super().__init__(outcome, "; a debit, if there was one, is returned" if is_unknown else "; nothing was debited")


def new_request_id() -> UUID:
    """Returns a UUID of version 7: it begins with the time, so new rows share index pages."""
    value = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return UUID(int=value & ~(0xF << 76 | 3 << 62) | 7 << 76 | 2 << 62)


async def place_bet(connection: Connection, operator_id: str, request_id: UUID, placement: Placement) -> None:
    """Enqueues the debit; wait for it with Outcomes.placed() after your commit."""
    await _enqueue(connection, operator_id, "BET_MAKE", request_id, placement)


async def win_bet(connection: Connection, operator_id: str, request_id: UUID, credit: Credit) -> None:
    """Ends the bet with a credit. A bet ends once, with one of these five functions."""
    await _enqueue(connection, operator_id, "BET_WIN", request_id, credit)


async def sell_bet(connection: Connection, operator_id: str, request_id: UUID, credit: Credit) -> None:
    """Ends the bet because the player sold the position."""
    await _enqueue(connection, operator_id, "BET_SELL", request_id, credit)


async def refund_bet(connection: Connection, operator_id: str, request_id: UUID, credit: Credit) -> None:
    """Ends the bet by returning its whole debit."""
    await _enqueue(connection, operator_id, "BET_REFUND", request_id, credit)


async def lose_bet(connection: Connection, operator_id: str, request_id: UUID, loss: Loss) -> None:
    """Ends the bet without a credit."""
    await _enqueue(connection, operator_id, "BET_LOSE", request_id, loss)


async def rollback_bet(connection: Connection, operator_id: str, bet_id: str, reason: str) -> UUID | None:
    """Rolls back a bet whose outcome is unknown or whose trade failed; may be repeated.

    Returns the rollback's request_id, or None if nothing has to be sent.
    """
    row = await _call(connection, "rollback_bet($1, $2, $3)", operator_id, bet_id, reason)
    return row[0] if row else None


async def read_outcome(connection: Connection, operator_id: str, request_id: UUID) -> Outcome | None:
    """Returns what is known of the callback, or None if nothing was enqueued under this id."""
    row = await _call(connection, "outcome($1, $2)", operator_id, request_id)
    return Outcome(**{name: row[name] for name in Outcome.__slots__}) if row else None


async def currency_digits(connection: Connection, currency: str) -> int:
    """Returns how many digits the currency's subunits have: 2 for EUR, 0 for JPY."""
    row = await _call(connection, "currency_digits($1)", currency)
    if row is None or row[0] is None:
        raise ValueError(f"unknown currency {currency}")
    return int(row[0])


def to_subunits(units: Decimal, digits: int) -> int:
    """Returns the exact amount in subunits. Raises ValueError instead of rounding."""
    numerator, denominator = units.as_integer_ratio()
    scale: int = 10**digits
    subunits, rest = divmod(numerator * scale, denominator)
    if rest:
        raise ValueError(f"{units} has more than {digits} digits")
    return subunits


def format_money(subunits: int, currency: str, digits: int) -> str:
    """Returns the amount as text: `12.50 EUR`."""
    return f"{Decimal(f'{subunits}E-{digits}'):f} {currency}"


async def repeat(work: Callable[[], Awaitable[T]]) -> T:
    """Runs your whole transaction again after a lost connection, a failover or a deadlock.

    So a COMMIT whose answer was lost counts once, if `work` uses the same request_id each time.
    """
    for pause_s in (0.1, 0.5, 2.0, 5.0):
        try:
            return await work()
        except ValueError:  # Also some errors of asyncpg: the same arguments fail again.
            raise
        except _REPEATABLE:
            await asyncio.sleep(pause_s)
    return await work()


class Outcomes:
    """Waits for outcomes. All waits of a process share one listening connection."""

    def __init__(self, pool: Connection, *, poll_s: float = 0.5) -> None:
        self._pool = pool
        self._poll_s = poll_s
        self._waiting: dict[str, set[asyncio.Event]] = {}

    async def listen(self, connect: Callable[[], Awaitable[asyncpg.Connection[Any]]]) -> None:
        """Receives notifications until it is cancelled, and reconnects: one task of your process.

        Without it, as behind a transaction-pooling proxy, outcomes come by polling alone.
        """
        while True:
            with suppress(*_REPEATABLE):
                connection = await connect()
                try:
                    closed = asyncio.Event()
                    connection.add_termination_listener(lambda _, closed=closed: closed.set())
                    await connection.add_listener("predictu_dispatch_outcome", self._wake)
                    await closed.wait()
                finally:
                    connection.terminate()
            await asyncio.sleep(1)

    def _wake(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for notified in self._waiting.get(str(payload), ()):
            notified.set()

    async def wait(self, operator_id: str, request_id: UUID, timeout_s: float = 20.0) -> Outcome:
        """Returns the final outcome of any callback, after your commit.

        Raises TimeoutError, or LookupError if nothing was enqueued under this id.
        """
        waiting = self._waiting.setdefault(f"{operator_id} {request_id}", set())
        notified = asyncio.Event()
        waiting.add(notified)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    notified.clear()
                    with suppress(*_REPEATABLE):  # The database may come back.
                        outcome = await read_outcome(self._pool, operator_id, request_id)
                        if outcome is None:
                            raise LookupError(f"{operator_id} has no callback {request_id}; did you commit?")
                        if outcome.state in _FINAL:
                            return outcome
                    # In Python 3.11 asyncio.wait_for() can lose a cancellation and the timeout.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_s):
                            await notified.wait()
        except TimeoutError:
            raise TimeoutError(f"callback {request_id} of {operator_id} is not final after {timeout_s:g} s") from None
        finally:
            waiting.discard(notified)
            if not waiting:
                self._waiting.pop(f"{operator_id} {request_id}", None)

    async def placed(self, operator_id: str, request_id: UUID, timeout_s: float = 20.0) -> Outcome:
        """Returns if the player was debited; raises BetNotPlaced if not.

        After any other exception the outcome is unknown: call rollback_bet(). `timeout_s` is a
        little longer than the operator's deadline_s, 15 s by default.
        """
        outcome = await self.wait(operator_id, request_id, timeout_s)
        if outcome.state != "delivered":
            raise BetNotPlaced(outcome)
        return outcome

    async def balance(self, operator_id: str, player_id: str, currency: str, timeout_s: float = 20.0) -> int:
        """Asks the operator for the player's balance. Raises NotDeliveredError."""
        request_id = new_request_id()
        params = {"player_id": player_id, "currency": currency}
        await _enqueue(self._pool, operator_id, "BALANCE", request_id, params)
        outcome = await self.wait(operator_id, request_id, timeout_s)
        if outcome.state != "delivered" or outcome.balance is None:
            raise NotDeliveredError(outcome)
        return outcome.balance


async def _enqueue(
    connection: Connection, operator_id: str, method: str, request_id: UUID, params: Mapping[str, object]
) -> None:
    # As text: the connection may have a codec of its own for jsonb.
    call = "enqueue_callback($1, $2, $3::text::jsonb, $4)"
    await _call(connection, call, operator_id, method, json.dumps(params), request_id)


async def _call(connection: Connection, call: str, *args: object) -> asyncpg.Record | None:
    try:
        return await connection.fetchrow(f"select * from predictu_dispatch.{call}", *args)  # noqa: S608 - constants
    except asyncpg.PostgresError as fault:
        sqlstate = str(fault.sqlstate)
        if not sqlstate.startswith("PD"):
            raise
        error = {kind.code: kind for kind in DispatchError.__subclasses__()}.get(sqlstate, DispatchError)
        raise error(str(fault), sqlstate, fault.hint) from fault
