"""An operator as seen from outside: its row, its requests, and when producers get an outcome."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
from aiohttp import web

from tests.support.daemons import WAIT_S, until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, connected, enqueue
from tests.support.operators import Operator, Request

OWN_TURN_S = 0.5
"""The bound for what takes milliseconds on an idle machine."""
ONE_ATTEMPT = {"max_attempts": 1}
"""Each BALANCE is one attempt, so a test counts failures by enqueueing them."""
THRESHOLD = 3
OPEN_S = 0.5


def failing(code: int = 500, **headers: str) -> Callable[[Request], web.Response]:
    """Returns an operator's `answer` that gives this code to every request and books nothing."""
    return lambda _: web.Response(status=code, headers={name.replace("_", "-"): text for name, text in headers.items()})


def print_figures(figures: str) -> None:
    """Prints measured times for `pytest -s`; the tests only assert generous bounds."""
    print(figures)  # noqa: T201


async def operator_row(environment: Environment, operator_id: str = OPERATOR) -> asyncpg.Record:
    found = await environment.harness.owner.fetchrow(
        "select * from predictu_dispatch.operator where operator_id = $1", operator_id
    )
    assert found is not None
    return found


async def until_operator_is(
    environment: Environment, *, within_s: float = WAIT_S, operator_id: str = OPERATOR, **columns: Any
) -> None:
    """Waits until these columns of the operator's row have these values."""

    async def are_equal() -> bool:
        now = await operator_row(environment, operator_id)
        return all(now[name] == value for name, value in columns.items())

    await until(f"{operator_id} is {columns}", are_equal, within_s=within_s)


async def enqueue_balance(environment: Environment, operator_id: str = OPERATOR) -> UUID:
    params = {"player_id": "p1", "currency": "EUR"}
    return await enqueue(environment.harness.producer, "BALANCE", params, operator_id=operator_id)


async def until_final(environment: Environment, *request_ids: UUID, within_s: float = WAIT_S) -> None:
    async def all_have() -> bool:
        return not await environment.harness.owner.fetchval(
            "select count(*) from predictu_dispatch.callback where request_id = any ($1) and finished_at is null",
            request_ids,
        )

    await until("the callbacks have ended", all_have, within_s=within_s)


async def open_circuit(environment: Environment, failures: int) -> None:
    """Opens the circuit by failing `failures` BALANCEs, and waits until no attempt is in flight."""
    environment.operator.answer = failing()
    await until_final(environment, *[await enqueue_balance(environment) for _ in range(failures)])
    await until_operator_is(environment, circuit="open")
    await until_nothing_in_flight(environment)


async def until_nothing_in_flight(environment: Environment) -> None:
    """Waits until no attempt is in flight, PINGs included."""

    async def none_is() -> bool:
        return "in_flight" not in await environment.states()

    await until("no attempt is in flight", none_is)


def pings(operator: Operator) -> list[Request]:
    return [request for request in operator.requests if request.method == "PING"]


def others(operator: Operator) -> list[Request]:
    return [request for request in operator.requests if request.method != "PING"]


async def until_heartbeats_sent(environment: Environment, count: int) -> None:
    """Waits until every live daemon has sent `count` more heartbeats, one per second."""
    until_when = await environment.harness.owner.fetchval("select now() + $1 * interval '1 second'", count)

    async def all_have() -> bool:
        oldest = await environment.harness.owner.fetchval(
            "select min(seen_at) from predictu_dispatch.daemon"
            " where seen_at > now() - predictu_dispatch.heartbeat_timeout()"
        )
        return oldest is not None and bool(oldest > until_when)

    await until(f"every daemon has sent {count} heartbeats", all_have)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """When a listening producer received each outcome: monotonic seconds by request_id."""

    received_at_s: dict[str, float] = field(default_factory=dict)

    async def of(self, request_id: UUID, *, within_s: float = WAIT_S) -> float:
        """Waits for the outcome; returns when it was received."""
        await until(f"the outcome of {request_id}", lambda: str(request_id) in self.received_at_s, within_s=within_s)
        return self.received_at_s[str(request_id)]


@asynccontextmanager
async def outcomes(dsn: str) -> AsyncIterator[Outcomes]:
    """Listens for outcomes as a producer does."""
    received = Outcomes()

    def note(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        received.received_at_s[str(payload).partition(" ")[2]] = time.monotonic()

    async with connected(dsn, 1) as [listener]:
        await listener.add_listener("predictu_dispatch_outcome", note)
        yield received


def write_operator(environment: Environment, *, open_s: float, **sections: Any) -> None:
    """Writes an operator's file: THRESHOLD failures, one attempt per interactive callback."""
    settings: dict[str, Any] = {"interactive": ONE_ATTEMPT, **sections}
    circuit = {"failure_threshold": THRESHOLD, "open_s": open_s}
    environment.fleet.write_operator(environment.operator.url, circuit=circuit, **settings)


async def wins(environment: Environment, count: int) -> list[UUID]:
    """Enqueues a BET_WIN for `count` adopted bets."""
    for n in range(count):
        await environment.adopt(f"won-{n}")
    return [await environment.harness.end("BET_WIN", f"won-{n}") for n in range(count)]


async def final_state(environment: Environment, request_id: UUID) -> tuple[str, str | None, str, int]:
    """Returns the state, reason, effect and attempts of the callback."""
    callback = await environment.harness.callback(request_id)
    return callback["state"], callback["reason"], callback["effect"], callback["attempts"]
