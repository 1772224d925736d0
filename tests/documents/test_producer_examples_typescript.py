"""Type-checks all TypeScript examples of sql/README.md, and runs those for node-postgres."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.code_blocks import code_under
from tests.support.market import README, Market
from tests.support.typescript import build_application, needs_node

DRIVER = Path(__file__).parent / "drive.ts"
WAIT_S = 60.0
PLAYER = "p-1"
STAKE = 1250

pytestmark = needs_node


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled examples and the program that calls them."""
    buy, main = code_under(README, "TypeScript (node-postgres)", "ts")
    [postgrest] = code_under(README, "TypeScript (PostgREST)", "ts")
    sources = {"buy.ts": buy, "main.ts": main, "postgrest.ts": postgrest}
    drive = {"drive.ts": DRIVER.read_text(encoding="utf-8")}
    return build_application(tmp_path_factory.mktemp("typescript"), sources | drive) / "drive.js"


class Producer:
    """A producer written as the README says; each step is a process of its own."""

    def __init__(self, program: Path, dsn: str) -> None:
        self.program = program
        self.dsn = dsn

    async def step(self, name: str, bet_id: str) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *("node", str(self.program), name, str(uuid.uuid4()), bet_id),
            env=os.environ | {"PRODUCER_DSN": self.dsn},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), WAIT_S)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0
        result: dict[str, Any] = json.loads(output)
        return result


@pytest.fixture
def producer(program: Path, market: Market) -> Producer:
    return Producer(program, market.producer_dsn)


async def test_the_typescript_buys_or_rolls_back_and_never_both(producer: Producer, market: Market) -> None:
    assert await producer.step("buy", "bought") == {"why_not": None}
    assert await producer.step("filled-unheard", "unheard") == {"why_not": None}
    assert await producer.step("no-liquidity", "no-liquidity") == {"why_not": "Error: no liquidity"}
    assert await producer.step("too-old", "too-old") == {"why_not": "Error: it was rolled back meanwhile"}
    await market.environment.until_all_final()
    assert market.environment.operator.balance[PLAYER] == -2 * STAKE
    market.environment.operator.refuse("INSUFFICIENT_FUNDS")
    why_not = "BetNotPlaced: the operator rejected it: INSUFFICIENT_FUNDS; nothing was debited"
    assert await producer.step("buy", "refused") == {"why_not": why_not}
    assert await market.trades() == {
        "bought": "filled",
        "unheard": "filled",
        "no-liquidity": "failed",
        "too-old": "failed",
        "refused": "failed",
    }
    assert await market.callbacks("bought") == await market.callbacks("unheard") == ["BET_MAKE delivered"]
    for bet_id in ("no-liquidity", "too-old"):
        assert await market.callbacks(bet_id) == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await market.callbacks("refused") == ["BET_MAKE rejected"]


async def test_the_typescript_enqueues_nothing_if_its_transaction_fails(producer: Producer, market: Market) -> None:
    fault = (await producer.step("wrong-amount", "b-1"))["fault"]
    assert "BadParamsError" in fault
    assert "amount" in fault
    assert (await market.trades(), await market.callbacks("b-1")) == ({}, [])
