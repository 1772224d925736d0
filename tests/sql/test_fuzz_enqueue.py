"""Fuzz enqueue_callback(): a call makes a sendable callback or raises a documented error.

Invalid jsonb and timestamps are refused by Postgres' casts. The function itself raises only the
SQLSTATEs in sql/README.md, never PD900 or an internal error. `HYPOTHESIS_PROFILE=long` runs for
minutes, from FUZZ_FROM on.
"""

import asyncio
import faulthandler
import json
import os
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from random import Random

import asyncpg

from predictu_dispatch.core.callback import Callback, body
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from tests.core.test_callback_body import parsed
from tests.hostile.calls import AMOUNT_FORMATS, FRESH, OPEN, PLACEMENT, Call, call
from tests.support.harness import open_harness
from tests.support.postgres import Server, cloned_database

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES = 50_000 if IS_LONG else 1_500
FROM = int(os.environ.get("FUZZ_FROM", "0"))
MESSAGES = {
    "PD001": r"unknown method ",
    "PD002": r"(unknown operator|operator .* is disabled)",
    "PD003": r'bad params for \w+: .*("\w+" |missing|unknown currency|JSON object|empty|params (are|have)|expires_at)',
    "PD004": r"request_id [0-9a-f-]{36} of operator ",
    "PD005": r"[A-Z_]+ for bet .* of operator .* is refused: ",
}
CAST_ERRORS = ("22", "54")
"""Classes of SQLSTATE: data exceptions, and program limits such as nesting depth."""
MESSAGE_CHARS_MAX = 600


class Producer:
    """One producer and one daemon for all examples."""

    def __init__(self, runner: asyncio.Runner, postgres: Server, template: str) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()
        self._examples = 0
        self.ends: Counter[str] = Counter()
        self._runner.run(self._open(postgres, template))

    async def _open(self, postgres: Server, template: str) -> None:
        database = await self._stack.enter_async_context(cloned_database(postgres, template))
        self._ledger = await self._stack.enter_async_context(open_harness(database))
        await self._ledger.owner.execute("update predictu_dispatch.operator set enabled = true")
        pool = Pool(database.dispatcher, pool_size=2, application_name="test")
        await pool.open()
        self._stack.push_async_callback(pool.close)
        self._outbox = Outbox(pool, instance="host-1")

    def close(self) -> None:
        self._runner.run(self._stack.aclose())

    def make(self, call: Call) -> None:
        self._runner.run(self._make(call))

    async def _make(self, call: Call) -> None:
        self._examples += 1
        params = await self._with_bets_of_its_own(call)
        for value, kind in ((params, "jsonb"), (call.expires_at, "timestamptz")):
            if refusal := await self._refusal_of(f"select ($1::text::{kind}) is null", value):
                # Postgres refused the value before the function was called.
                assert refusal.sqlstate.startswith(CAST_ERRORS), refusal.sqlstate
                self.ends["cast"] += 1
                return
        try:
            request_id = await self._ledger.producer.fetchval(
                "select predictu_dispatch.enqueue_callback($1, $2, $3::text::jsonb, $4, $5::text::timestamptz)",
                *(call.operator_id, call.method, params, call.request_id, call.expires_at),
            )
        except asyncpg.PostgresError as refusal:
            self._assert_says_what_is_wrong(call, refusal)
            self.ends[str(refusal.sqlstate)] += 1
        else:
            await self._assert_can_be_sent(call, request_id, params)

    async def _with_bets_of_its_own(self, call: Call) -> str | None:
        params = call.params
        placement = uuid.UUID(int=2**100 + self._examples)
        if params is None or call.operator_id not in AMOUNT_FORMATS:
            return params
        if f'"{OPEN}"' in params:
            await self._ledger.producer.execute(
                "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, $3)",
                *(call.operator_id, f"{OPEN}-{self._examples}", placement),
            )
        for bet_id in (FRESH, OPEN):
            params = params.replace(f'"{bet_id}"', f'"{bet_id}-{self._examples}"')
        return params.replace(PLACEMENT, str(placement))

    async def _refusal_of(self, statement: str, value: str | None) -> asyncpg.PostgresError | None:
        try:
            await self._ledger.producer.fetchval(statement, value)
        except asyncpg.PostgresError as refusal:
            return refusal
        return None

    def _assert_says_what_is_wrong(self, call: Call, refusal: asyncpg.PostgresError) -> None:
        # Not str(), which adds the hint.
        message = str(refusal.args[0])
        if any("\0" in (text or "") for text in (call.operator_id, call.method)):
            assert refusal.sqlstate == "22021", "Postgres accepts no NUL in a text"
            return
        assert refusal.sqlstate in MESSAGES, f"{refusal.sqlstate}: {refusal}"
        assert re.match(MESSAGES[refusal.sqlstate], message, re.DOTALL), message
        assert len(message) <= MESSAGE_CHARS_MAX, "the message must be readable"
        assert refusal.hint, message
        if refusal.sqlstate == "PD003" and call.spoilt is not None:
            assert call.spoilt in message or (call.expires_at and "expires_at" in message), message

    async def _assert_can_be_sent(self, call: Call, request_id: uuid.UUID, params: str | None) -> None:
        row = await self._ledger.owner.fetchrow(
            "select *, params = $3::text::jsonb as same from predictu_dispatch.callback"
            " where operator_id = $1 and request_id = $2",
            *(call.operator_id, request_id, params),
        )
        assert row is not None
        assert (row["method"], row["same"]) == (call.method, True)
        assert call.request_id in {None, request_id}
        self.ends[row["state"] if row["attempts"] == 0 else "repeated"] += 1
        claimed = {one.request_id: one for one in await self._outbox.claim(WANTS)}
        assert (request_id in claimed) == (row["state"] == "ready"), row
        if request_id in claimed:
            assert_has_a_body(claimed[request_id])


WANTS = [
    ClaimRequest(
        operator_id=operator_id,
        lane=lane,
        free_slots=10,
        lease_s=600.0,
        rollback_lease_s=600.0,
        amount_format=amount_format,
    )
    for operator_id, amount_format in AMOUNT_FORMATS.items()
    for lane in Lane
]


def assert_has_a_body(callback: Callback) -> None:
    """Check that the body is JSON with the params as Postgres prints them."""
    written = body(callback)
    envelope = parsed(written)
    stored = parsed(callback.params)
    assert list(envelope) == ["method", "timestamp", "request_id", "operator_id", "params"]
    if callback.amount_format == "decimal" and "amount" in stored:
        digits = envelope["params"].pop("amount")[1]
        assert digits.replace(".", "").lstrip("0") == stored.pop("amount")[1].lstrip("0")
    assert envelope["params"] == stored
    json.dumps(written.decode())


@contextmanager
def producing(postgres: Server, template: str) -> Iterator[Producer]:
    with asyncio.Runner() as runner:
        producer = Producer(runner, postgres, template)
        try:
            yield producer
        finally:
            producer.close()


def test_every_call_makes_a_sendable_callback_or_an_error_that_names_the_fault(postgres: Server, template: str) -> None:
    if IS_LONG:
        # The time limit is for tests that hang; the long profile runs for minutes.
        faulthandler.cancel_dump_traceback_later()
    with producing(postgres, template) as producer:
        for number in range(FROM, FROM + EXAMPLES):
            now = call(Random(number))
            try:
                producer.make(now)
            except Exception as error:
                raise AssertionError(f"number {number}: {now}"[:2_000]) from error
    # Enough calls must be accepted for the test to be meaningful.
    assert producer.ends.keys() >= {"ready", "waiting", "repeated", "cast", *MESSAGES}, producer.ends
