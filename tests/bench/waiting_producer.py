"""A producer that enqueues placements and waits for their outcome.

It listens before it enqueues and chooses the request_id, so that it misses no notification.
"""

import asyncio
import time
import uuid
from typing import Any

import asyncpg

from tests.bench.json_lines import Question, answer_lines
from tests.bench.producer import on_schedule, params_of, rehearse

_CONNECTIONS = 8
"""Twice as many as in producer.py, because each arrival enqueues and later reads its outcome."""
_ENQUEUE = "select predictu_dispatch.enqueue_callback($1, 'BET_MAKE', $2::text::jsonb, $3)"
_OUTCOME = "select state from predictu_dispatch.outcome($1, $2)"
_WAIT_S = 20.0
"""Longer than the interactive deadline_s of 15 s."""
_FINAL = frozenset({"delivered", "rejected", "exhausted", "cancelled"})


async def _answer(question: Question) -> list[list[Any]]:
    """One row per placement: request_id, time of the commit, and time of the outcome or None."""
    waiting: dict[str, asyncio.Future[float]] = {}

    def hear(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        future = waiting.get(str(payload).rpartition(" ")[2])
        if future is not None and not future.done():
            future.set_result(time.monotonic())

    async with asyncpg.create_pool(question["dsn"], min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:
        listener = await asyncpg.connect(question["dsn"])
        await listener.add_listener("predictu_dispatch_outcome", hear)
        operator_ids = question["operator_ids"]
        await rehearse(
            pool,
            (_ENQUEUE, operator_ids[0], params_of("BET_MAKE", 0), uuid.uuid4()),
            (_OUTCOME, operator_ids[0], uuid.uuid4()),
        )

        async def place(number: int, _scheduled_s: float) -> list[Any]:
            operator_id, request_id = operator_ids[number % len(operator_ids)], uuid.uuid4()
            notified = waiting[str(request_id)] = asyncio.get_running_loop().create_future()
            async with pool.acquire() as connection:
                await connection.fetchval(_ENQUEUE, operator_id, params_of("BET_MAKE", number), request_id)
            committed_s = time.monotonic()
            try:
                await asyncio.wait_for(notified, _WAIT_S)
            except TimeoutError:
                return [str(request_id), committed_s, None]
            async with pool.acquire() as connection:
                state = await connection.fetchval(_OUTCOME, operator_id, request_id)
            return [str(request_id), committed_s, time.monotonic() if state in _FINAL else None]

        placed = await on_schedule(question, place)
        await listener.close()
        return placed


if __name__ == "__main__":
    answer_lines(_answer)
