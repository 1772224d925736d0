"""Random answers: every attempt ends, accepts only complete answers, and can be stored.

A seeded fuzzer sends answers over real sockets to one transport. An answer with a new result is
mutated further, so that the fuzzer explores the response path. A failure prints the answer.
`HYPOTHESIS_PROFILE=long` runs for minutes, from number FUZZ_FROM.
"""

import asyncio
import faulthandler
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from random import Random

import asyncpg

from predictu_dispatch.core.callback import Callback, Evidence, Exchange
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.lifecycle import Attempt, Cause, outcome_of
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.operator_settings import INTERACTIVE
from predictu_dispatch.core.verdict import Judgement, Statuses, judge
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from tests.core.test_callback_body import a_callback
from tests.core.test_verdict import assert_storable, assert_verdict_follows_from_the_status
from tests.hostile.entry import Then, assert_can_be_stored
from tests.hostile.mutations import RawAnswer, random_answer
from tests.hostile.oracle import UnsureError, answer_in, status_in
from tests.support.harness import OPERATOR, enqueue, open_harness
from tests.support.postgres import Server, cloned_database
from tests.support.raw_server import TIMEOUT_S, Peer, RawServer, post, transport_to

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES = 100_000 if IS_LONG else 1_000
FROM = int(os.environ.get("FUZZ_FROM", "0"))
NOW = datetime(2026, 3, 19, 14, 30, tzinfo=UTC)
BUILT_IN = Statuses.of()
BYTES_MAX = 8_000
"""max_response_bytes of this operator; some answers are longer."""
ANSWER_TIMEOUT_S = {Then.GOES_ON: 0.05, Then.CLOSES: 0.3, Then.RESETS: 0.3}
"""The timeout of attempts with an incomplete answer. Closing the connection ends most of them."""
STORED_MAX = 400
"""The number of different exchanges that are also settled in Postgres."""
ANSWERED, NOT_SENT = Evidence.ANSWERED, Evidence.NOT_SENT


class Conversation:
    """One server and one transport for all examples, and the server's next answer."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()
        self._answer = RawAnswer(pieces=(), then=Then.CLOSES, is_whole=False)
        self._attempt = 0
        self._arrived = False
        self._has_spoken = asyncio.Event()
        self._runner.run(self._open())

    async def _open(self) -> None:
        server = await self._stack.enter_async_context(RawServer(self._speak).running())
        self._transport = await self._stack.enter_async_context(
            transport_to(server.url, limits={"max_response_bytes": BYTES_MAX})
        )

    def close(self) -> None:
        self._runner.run(self._stack.aclose())

    async def _speak(self, peer: Peer) -> None:
        goes_on = True
        while goes_on:
            request = await peer.request()
            if request.partition(b"\r\n\r\n")[2] != b"%d" % self._attempt:
                # A late request of an earlier attempt, on a slow machine.
                return
            self._arrived, now = True, self._answer
            try:
                for piece in now.pieces:
                    await peer.send(piece)
                    await asyncio.sleep(0)
            finally:
                self._has_spoken.set()
            if now.then is Then.RESETS:
                peer.reset()
            goes_on = now.then is Then.GOES_ON

    def exchange(self, answer: RawAnswer) -> Exchange:
        return self._runner.run(self._exchange(answer))

    async def _exchange(self, answer: RawAnswer) -> Exchange:
        self._answer, self._arrived = answer, False
        self._has_spoken.clear()
        while True:
            self._attempt += 1
            exchange = await post(
                self._transport,
                body=b"%d" % self._attempt,
                timeout_s=TIMEOUT_S if answer.is_whole else ANSWER_TIMEOUT_S[answer.then],
            )
            if self._arrived:
                break
            # The previous answer broke or closed the connection.
            assert exchange.evidence is not ANSWERED, exchange
            assert exchange.reason in {"unsolicited_data", "reset"} or not answer.is_whole, exchange
        assert exchange.evidence is not NOT_SENT, "the request is there"
        async with asyncio.timeout(5):
            await self._has_spoken.wait()
        for _ in range(5):
            # Unsolicited data arrives before the next request is sent.
            await asyncio.sleep(0)
        return exchange


@contextmanager
def conversation() -> Iterator[Conversation]:
    with asyncio.Runner() as runner:
        talk = Conversation(runner)
        try:
            yield talk
        finally:
            talk.close()


def end_of(exchange: Exchange, judgement: Judgement) -> tuple[object, ...]:
    """The kind of result; a new kind probably took a new path through the code."""
    text = re.sub(r"[0-9]+|b?'.*'|\"", "", (exchange.error or "").partition("\n")[0])[:60]
    return (
        *(exchange.evidence, exchange.reason, exchange.status and exchange.status // 100, text),
        *(judgement.reason, judgement.operator_status is not None, (judgement.anomaly or "")[:10]),
    )


def assert_accepts_only_complete_answers(answer: RawAnswer, exchange: Exchange) -> None:
    """Checks that only complete answers count as answered, and all complete ones do."""
    try:
        found = answer_in(answer.wire, closed=answer.then is not Then.GOES_ON)
    except UnsureError:
        return
    if exchange.evidence is ANSWERED:
        assert found is not None, exchange
        assert (exchange.status, exchange.body) == found
    elif answer.is_whole and answer.then is not Then.RESETS:
        # With a RST the kernel may discard unread bytes.
        assert (exchange.reason, len(found.body if found else b"") > BYTES_MAX) == ("too_large", True), exchange


def assert_verdict_follows_from_the_body(exchange: Exchange, judgement: Judgement, method: Method) -> None:
    """Checks that only a known status in a valid object is final."""
    try:
        status = status_in(exchange.body) if exchange.evidence is ANSWERED else None
    except UnsureError:
        return
    if exchange.status is None or exchange.status >= 500 or 300 <= exchange.status < 400:
        status = None
    assert_verdict_follows_from_the_status(judgement, method, exchange.status or 0, status)


def test_random_answers_have_a_correct_result_that_postgres_stores(postgres: Server, template: str) -> None:
    kept: dict[tuple[object, ...], Exchange] = {}
    found: dict[tuple[object, ...], bytes] = {}
    if IS_LONG:
        # The time limit is for tests that hang.
        faulthandler.cancel_dump_traceback_later()
    with conversation() as talk:
        for number in range(FROM, FROM + EXAMPLES):
            rng = Random(number)
            now = random_answer(rng, list(found.values()))
            try:
                exchange, judgement = attempt(talk, now, rng)
            except Exception as error:
                raise AssertionError(f"number {number}: {now}") from error
            found.setdefault(end_of(exchange, judgement), now.wire)
            if len(kept) < STORED_MAX:
                kept.setdefault((exchange.error, exchange.headers, exchange.body), exchange)
    # The fuzzer must reach these results.
    reasons = {reason for _, _, _, _, reason, *_ in found}
    assert reasons >= {
        *(None, "insufficient_funds", "unknown_status", "no_status", "duplicate_keys"),
        *("not_json", "not_utf8", "misconfigured", "http_500", "bad_http", "truncated", "reset", "too_large"),
    }, reasons
    assert len(found) >= 40
    asyncio.run(store_all(postgres, template, list(kept.values())))


def attempt(talk: Conversation, now: RawAnswer, rng: Random) -> tuple[Exchange, Judgement]:
    exchange = talk.exchange(now)
    method = rng.choice(list(Method))
    callback = a_callback(
        method, amount_format=rng.choice(["subunits", "decimal"]), minor_digits=rng.choice([None, 0, 2, 4])
    )
    judgement = judge(callback, exchange, BUILT_IN, now=NOW)
    assert_can_be_stored(exchange, bytes_max=BYTES_MAX)
    assert_storable(judgement)
    assert_accepts_only_complete_answers(now, exchange)
    assert_verdict_follows_from_the_body(exchange, judgement, method)
    return exchange, judgement


async def store_all(postgres: Server, template: str, exchanges: list[Exchange]) -> None:
    """Settles each exchange as an attempt of its own callback and compares the audit rows."""
    async with cloned_database(postgres, template) as database, open_harness(database) as harness:
        for n in range(len(exchanges)):
            await enqueue(harness.producer, "BALANCE", {"player_id": f"p{n}", "currency": "EUR"})
        pool = Pool(database.dispatcher, pool_size=2, application_name="test")
        await pool.open()
        try:
            outbox = Outbox(pool, instance="host-1")
            callbacks = await outbox.claim([WANT])
            attempts = [an_attempt(*one) for one in zip(callbacks, exchanges, strict=True)]
            await settle_all(outbox, attempts)
        finally:
            await pool.close()
        rows = {row["request_id"]: row for row in await harness.owner.fetch("select * from predictu_dispatch.attempt")}
        for attempt in attempts:
            row, exchange = rows[attempt.callback.request_id], attempt.exchange
            assert row["error"] == exchange.error
            if exchange.status is not None:
                assert row["response_body"] == exchange.body
                assert json.loads(row["response_headers"]) == [list(header) for header in exchange.headers]


WANT = ClaimRequest(
    operator_id=OPERATOR,
    lane=Lane.INTERACTIVE,
    free_slots=STORED_MAX,
    lease_s=60.0,
    rollback_lease_s=60.0,
    amount_format="decimal",
)


def an_attempt(callback: Callback, exchange: Exchange) -> Attempt:
    judgement = judge(callback, exchange, BUILT_IN, now=NOW)
    return Attempt(
        callback=callback,
        instance="host-1",
        finished_at=callback.leased_at + timedelta(milliseconds=5),
        exchange=exchange,
        judgement=judgement,
        outcome=outcome_of(callback, judgement, INTERACTIVE, recheck_s=60.0, elapsed_s=0.005, jitter=0.0),
        report_id=uuid.uuid4(),
    )


async def settle_all(outbox: Outbox, attempts: list[Attempt]) -> None:
    """Settles all in one batch; an AssertionError names the exchange that Postgres refuses."""
    try:
        changes = await outbox.settle(attempts)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError):
        for attempt in attempts:
            try:
                await outbox.settle([attempt])
            except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as refused:
                raise AssertionError(f"{refused}: {attempt.exchange} judged {attempt.judgement}") from refused
        raise
    assert {change.cause for change in changes} == {Cause.SETTLED}
