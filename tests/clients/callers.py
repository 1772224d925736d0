"""Calls the producers' packages, with the same arguments and the same results in each language."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import predictu_dispatch_client as client

from tests.support.code_blocks import code_under
from tests.support.harness import OPERATOR

README = "sql/clients/python/README.md"
WAIT_S = 60.0
_LINE_BYTES_MAX = 2**22
_DETAILS: client.BetDetails = {"market_id": "m-7", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.54}


def _placement(given: Mapping[str, Any]) -> client.Placement:
    return {
        "player_id": "p-1",
        "currency": "EUR",
        "amount": given.get("amount", 1250),
        "bet_id": given["bet_id"],
        "bet": _DETAILS,
    }


class Refused(Exception):  # noqa: N818 - also an outcome
    """The call raised an error; the fields are what the error has."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.fields = fields


class Caller(Protocol):
    """A producer's process."""

    async def __call__(self, name: str, /, **given: Any) -> Any:
        """Runs one call. Amounts in results are texts. Raises Refused."""


class _Python:
    def __init__(self, pool: Any, outcomes: client.Outcomes) -> None:
        self._pool = pool
        self._outcomes = outcomes

    async def __call__(self, name: str, /, **given: Any) -> Any:
        given = {"operator_id": OPERATOR} | given
        for key in {"request_id"} & given.keys():
            given[key] = uuid.UUID(str(given[key]))
        try:
            result = await getattr(self, f"_{name}")(given)
        except Exception as fault:
            message = str(fault)
            raise Refused(
                {"name": type(fault).__name__.removesuffix("Error"), "message": message, **vars(fault)}
            ) from fault
        return result

    async def _place(self, given: dict[str, Any]) -> None:
        async def work() -> None:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(
                    "insert into trade (bet_id, state) values ($1, 'placing') on conflict do nothing", given["bet_id"]
                )
                await client.place_bet(connection, given["operator_id"], given["request_id"], _placement(given))

        await client.repeat(work)

    async def _buy(self, given: dict[str, Any]) -> str | None:
        names: dict[str, Any] = {}
        [block] = code_under(README, "predictu-dispatch-client", "python")
        exec(compile(block, README, "exec"), names)  # noqa: S102 # These lines are ours.
        why_not: str | None = await names["buy"](self._pool, self._outcomes, _placement(given))
        return why_not

    async def _end(self, given: dict[str, Any]) -> None:
        to = (self._pool, given["operator_id"], given["request_id"])
        if given["method"] == "BET_LOSE":
            await client.lose_bet(*to, {"player_id": "p-1", "bet_id": given["bet_id"]})
            return
        end = {"BET_WIN": client.win_bet, "BET_SELL": client.sell_bet, "BET_REFUND": client.refund_bet}
        credit: client.Credit = {
            "player_id": "p-1",
            "currency": "EUR",
            "amount": given["amount"],
            "bet_id": given["bet_id"],
        }
        await end[given["method"]](*to, credit)

    async def _roll_back(self, given: dict[str, Any]) -> str | None:
        rollback = await client.rollback_bet(self._pool, given["operator_id"], given["bet_id"], "no liquidity")
        return str(rollback) if rollback else None

    async def _placed(self, given: dict[str, Any]) -> dict[str, Any]:
        outcome = await self._outcomes.placed(given["operator_id"], given["request_id"], given["timeout_s"])
        fields = asdict(outcome)
        return fields | {"balance": None if outcome.balance is None else str(outcome.balance)}

    async def _placed_all(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        each = ({**given, "request_id": uuid.UUID(request_id)} for request_id in given["request_ids"])
        return list(await asyncio.gather(*(self._placed(one) for one in each)))

    async def _balance(self, given: dict[str, Any]) -> str:
        return str(await self._outcomes.balance(given["operator_id"], given["player_id"], "EUR"))

    async def _digits(self, given: dict[str, Any]) -> int:
        return await client.currency_digits(self._pool, given["currency"])

    async def _money(self, given: dict[str, Any]) -> list[str]:
        subunits = client.to_subunits(Decimal(given["units"]), given["digits"])
        return [str(subunits), client.format_money(subunits, given["currency"], given["digits"])]

    async def _new_request_id(self, _given: dict[str, Any]) -> str:
        return str(client.new_request_id())


@asynccontextmanager
async def python_caller(dsn: str, listen_dsn: str | None, poll_s: float) -> AsyncIterator[Caller]:
    """Calls the Python package in this process."""
    # Without the cache, as a transaction-pooling proxy needs it.
    pool = await asyncpg.create_pool(dsn, min_size=0, max_size=4, command_timeout=WAIT_S, statement_cache_size=0)
    outcomes = client.Outcomes(pool, poll_s=poll_s)
    listening = asyncio.create_task(outcomes.listen(lambda: asyncpg.connect(listen_dsn))) if listen_dsn else None
    try:
        yield _Python(pool, outcomes)
        assert outcomes._waiting == {}
    finally:
        if listening:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        pool.terminate()


class _TypeScript:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __call__(self, name: str, /, **given: Any) -> Any:
        assert self._process.stdin is not None
        number = next(self._numbers)
        answered = self._answers[number] = asyncio.get_running_loop().create_future()
        given = {"operator_id": OPERATOR} | given
        if "amount" in given:
            given["amount"] = str(given["amount"])
        call = {"number": number, "name": name, "given": given}
        self._process.stdin.write(json.dumps(call, default=str).encode() + b"\n")
        answer = await asyncio.wait_for(answered, WAIT_S)
        if "fault" in answer:
            fault = answer["fault"]
            raise Refused({**fault, "name": fault["name"].removesuffix("Error")})
        return answer["result"]

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            self._answers.pop(answer["number"]).set_result(answer)


@asynccontextmanager
async def typescript_caller(program: Path, dsn: str, listen_dsn: str | None, poll_s: float) -> AsyncIterator[Caller]:
    """Calls the TypeScript package in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *("node", str(program)),
        env=os.environ | {"DSN": dsn, "LISTEN_DSN": listen_dsn or "", "POLL_MS": str(round(poll_s * 1000))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES_MAX,
    )
    assert process.stdin is not None
    caller = _TypeScript(process)
    reading = asyncio.create_task(caller.read())
    try:
        yield caller
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), WAIT_S) == 0
        await reading
    finally:
        reading.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
