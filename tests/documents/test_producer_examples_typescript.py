"""Type-checks all TypeScript examples of sql/README.md, and runs those for node-postgres."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.support.code_blocks import ROOT, code_under
from tests.support.harness import OPERATOR
from tests.support.market import README, Market
from tests.support.postgres_proxy import Trick, proxied

FOLDER = ROOT / "tests" / "typescript"
WAIT_S = 60.0
PLAYER = "p-1"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (FOLDER / "node_modules" / "pg").exists(),
    reason="needs node 20 or newer, and its packages: npm ci --prefix tests/typescript",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled examples and the program that calls them."""
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    for file in ("tsconfig.json", "drive.ts"):
        shutil.copy(FOLDER / file, folder)
    for heading, file in (("TypeScript (node-postgres)", "producer.ts"), ("TypeScript (PostgREST)", "postgrest.ts")):
        (folder / file).write_text("\n".join(code_under(README, heading, "ts")), encoding="utf-8")
    compiled = subprocess.run(
        [folder / "node_modules/.bin/tsc", "--project", "."], cwd=folder, capture_output=True, text=True, check=False
    )
    assert compiled.returncode == 0, compiled.stdout
    return folder / "built"


class Producer:
    """A producer written as the README says; each step is a process of its own."""

    def __init__(self, built: Path, market: Market) -> None:
        self.built = built
        self.market = market
        self.dsn = market.producer_dsn

    async def step(self, name: str, bet_id: str, request_id: uuid.UUID | None = None) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *("node", "drive.js", name, OPERATOR, str(request_id or uuid.uuid4()), bet_id),
            cwd=self.built,
            env=os.environ | {"DSN": self.dsn, "LISTEN_DSN": self.market.producer_dsn},
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
def producer(built: Path, market: Market) -> Producer:
    return Producer(built, market)


async def test_the_typescript_buys_or_rolls_back_and_never_both(producer: Producer, market: Market) -> None:
    assert await producer.step("buy", "bought") == {"result": True}
    assert await producer.step("buy-filled-unheard", "unheard") == {"result": True}
    assert await producer.step("buy-without-liquidity", "no-liquidity") == {"result": False}
    await market.environment.until_all_final()
    assert market.environment.operator.balance[PLAYER] == -2500
    market.environment.operator.refuse("INSUFFICIENT_FUNDS")
    assert await producer.step("buy", "refused") == {"result": False}
    assert await market.trades() == {
        "bought": "filled",
        "unheard": "filled",
        "no-liquidity": "failed",
        "refused": "failed",
    }
    assert await market.callbacks("bought") == await market.callbacks("unheard") == ["BET_MAKE delivered"]
    assert await market.callbacks("no-liquidity") == ["BET_MAKE delivered", "BET_ROLLBACK delivered"]
    assert await market.callbacks("refused") == ["BET_MAKE rejected"]


async def test_the_typescript_gets_an_outcome(producer: Producer, market: Market) -> None:
    request_id = uuid.uuid4()
    market.environment.operator.hold()
    assert await producer.step("place", "b-1", request_id) == {"result": "placed"}
    await market.environment.until_in_flight(1)
    waiting = asyncio.create_task(producer.step("wait", "b-1", request_id))
    market.environment.operator.release()
    outcome = (await waiting)["result"]
    assert outcome == {
        "state": "delivered",
        "reason": None,
        "effect": "applied",
        "operator_status": "OK",
        "operator_transaction_id": "tx-0",
        "balance": str(1_000_000 - 1250),
    }
    assert "did you commit?" in (await producer.step("wait", "b-1", uuid.uuid4()))["fault"]


async def test_the_typescript_enqueues_nothing_if_its_transaction_fails(producer: Producer, market: Market) -> None:
    result = await producer.step("place-wrongly", "b-1")
    assert (result["is_database_error"], result["code"]) == (True, "PD003")
    assert "amount" in result["fault"]
    assert "subunits" in result["hint"]
    assert (await market.trades(), await market.callbacks("b-1")) == ({}, [])
    assert (await producer.step("take-back", "b-404"))["result"] is False


async def test_the_typescript_places_once_if_the_commits_answer_is_lost(producer: Producer, market: Market) -> None:
    async with proxied(market.producer_dsn) as proxy:
        producer.dsn = proxy.dsn()
        proxy.on_next("commit", Trick.KEEP_ANSWER)
        placing = asyncio.create_task(producer.step("place-surely", "b-1"))
        await asyncio.wait_for(proxy.caught.wait(), WAIT_S)
        await market.environment.until_all_final()
        proxy.cut()
        assert await placing == {"result": "placed"}
        assert proxy.runs("enqueue_callback") == 2
    assert await market.callbacks("b-1") == ["BET_MAKE delivered"]
