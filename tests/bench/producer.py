"""A producer in a process of its own: it enqueues on a schedule fixed beforehand and waits for no daemon.

The schedule is open: each arrival happens at its moment, whether the one before it is through or not. A producer that
waited its turn would ask least when the system is slowest, and measure the system at its best.
"""

import asyncio
import json
import random
import time
import uuid
from typing import Any

import asyncpg

from tests.bench.lines import Question, answer_lines

_CONNECTIONS = 4
"""An enqueue takes some milliseconds, its commit on disk included; with fewer, one slow commit would delay the next."""
_SPREAD = 0.9
"""Arrivals come evenly, each moved within this share of the gap, so that they do not fall in step with any timer."""
_ENQUEUE = "select predictu_dispatch.enqueue_callback($1, $2, $3::text::jsonb)"


def arrivals_s(count: int, rate: float, chance: random.Random) -> list[float]:
    """When each of `count` arrivals happens, in seconds from the start."""
    return [(number + 0.5 + _SPREAD * (chance.random() - 0.5)) / rate for number in range(count)]


def params_of(method: str, number: int) -> str:
    """What a producer gives for one callback; a placement is of a bet that is new."""
    params: dict[str, Any] = {"player_id": f"p-{number}", "currency": "EUR"}
    if method == "BET_MAKE":
        bet = {"market_id": "m-7", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.54}
        params |= {"amount": 500, "bet_id": f"live-{uuid.uuid4()}", "bet": bet}
    return json.dumps(params)


async def _prepare(pool: "asyncpg.Pool[asyncpg.Record]", operator_id: str, method: str) -> None:
    """A connection has compiled the function: the first call takes far longer than all that follow."""
    async with pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        await connection.fetchval(_ENQUEUE, operator_id, method, params_of(method, 0))
        await transaction.rollback()


async def _answer(question: Question) -> list[list[Any]]:
    """One row for each enqueued callback: its request_id, when it was scheduled, begun, and committed."""
    async with asyncpg.create_pool(question["dsn"], min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:
        operator_ids, method = question["operator_ids"], question["method"]
        await asyncio.gather(*(_prepare(pool, operator_ids[0], method) for _ in range(_CONNECTIONS)))
        start_s = time.monotonic() + 0.1

        async def enqueue(number: int, scheduled_s: float) -> list[Any]:
            async with pool.acquire() as connection:
                began_s = time.monotonic()
                operator_id, params = operator_ids[number % len(operator_ids)], params_of(method, number)
                request_id = await connection.fetchval(_ENQUEUE, operator_id, method, params)
                return [str(request_id), scheduled_s, began_s, time.monotonic()]

        async with asyncio.TaskGroup() as arrivals:
            enqueued = []
            count = round(question["rate"] * question["seconds"])
            for number, offset_s in enumerate(arrivals_s(count, question["rate"], random.Random(question["seed"]))):
                await asyncio.sleep(start_s + offset_s - time.monotonic())
                enqueued.append(arrivals.create_task(enqueue(number, start_s + offset_s)))
        return [task.result() for task in enqueued]


if __name__ == "__main__":
    answer_lines(_answer)
