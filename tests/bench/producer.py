"""A producer process that enqueues on an open schedule.

Each arrival happens at its scheduled time, whether or not the previous one is done. A producer that
waited would send fewer requests while the system is slow, and so hide its worst latencies.
"""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg

from tests.bench.json_lines import Question, answer_lines

_CONNECTIONS = 4
"""Connections: with fewer, one slow commit would delay the next arrival."""
_SPREAD = 0.9
"""Random shift of each arrival, as a share of the gap; avoids alignment with timers."""
_ENQUEUE = "select predictu_dispatch.enqueue_callback($1, $2, $3::text::jsonb)"


def arrivals_s(count: int, rate: float, chance: random.Random) -> list[float]:
    """The time of each of `count` arrivals, in seconds from the start."""
    return [(number + 0.5 + _SPREAD * (chance.random() - 0.5)) / rate for number in range(count)]


def params_of(method: str, number: int) -> str:
    """The params of one callback; each placement has a new bet."""
    params: dict[str, Any] = {"player_id": f"p-{number}", "currency": "EUR"}
    if method == "BET_MAKE":
        bet = {"market_id": "m-7", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.54}
        params |= {"amount": 500, "bet_id": f"live-{uuid.uuid4()}", "bet": bet}
    return json.dumps(params)


async def rehearse(pool: "asyncpg.Pool[asyncpg.Record]", *calls: tuple[Any, ...]) -> None:
    """Run the statements once on every connection, because the first run is much slower."""

    async def on_one_connection() -> None:
        async with pool.acquire() as connection:
            transaction = connection.transaction()
            await transaction.start()
            for call in calls:
                await connection.fetchval(*call)
            await transaction.rollback()

    await asyncio.gather(*(on_one_connection() for _ in range(pool.get_size())))


async def on_schedule(
    question: Question, act: Callable[[int, float], Coroutine[Any, Any, list[Any]]]
) -> list[list[Any]]:
    """Run `act(number, scheduled_s)` at each arrival of the schedule; returns the results."""
    start_s = time.monotonic() + 0.1
    count = round(question["rate"] * question["seconds"])
    async with asyncio.TaskGroup() as arrivals:
        tasks = []
        for number, offset_s in enumerate(arrivals_s(count, question["rate"], random.Random(question["seed"]))):
            await asyncio.sleep(start_s + offset_s - time.monotonic())
            tasks.append(arrivals.create_task(act(number, start_s + offset_s)))
    return [task.result() for task in tasks]


async def _answer(question: Question) -> list[list[Any]]:
    """One row per callback: request_id, and its scheduled, begun and committed time."""
    async with asyncpg.create_pool(question["dsn"], min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:
        operator_ids, method = question["operator_ids"], question["method"]
        await rehearse(pool, (_ENQUEUE, operator_ids[0], method, params_of(method, 0)))

        async def enqueue(number: int, scheduled_s: float) -> list[Any]:
            async with pool.acquire() as connection:
                began_s = time.monotonic()
                operator_id, params = operator_ids[number % len(operator_ids)], params_of(method, number)
                request_id = await connection.fetchval(_ENQUEUE, operator_id, method, params)
                return [str(request_id), scheduled_s, began_s, time.monotonic()]

        return await on_schedule(question, enqueue)


if __name__ == "__main__":
    answer_lines(_answer)
