"""`why` names the transaction that has locked a callback, and stays fast with a long backlog."""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.commands.conftest import lengthen_heartbeat_timeout
from tests.support.command_line import command_line_for
from tests.support.harness import OPERATOR, connected, open_harness
from tests.support.postgres import Database, cloned_database, create_template, server_of
from tests.support.scene import Scene, in_order

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
UNKNOWN = uuid.UUID(int=7)


@pytest.fixture
async def embedded_with_prepared() -> AsyncIterator[Database]:
    """A database on a server of its own that allows prepared transactions."""
    with EmbeddedPostgres(fsync=False, settings={"max_prepared_transactions": "4"}) as embedded:
        own = server_of(embedded)
        async with cloned_database(own, await create_template(own)) as database:
            await lengthen_heartbeat_timeout(database)
            yield database


async def test_a_locked_row_names_the_session(scene: Scene) -> None:
    """A person forgot to commit in psql: claims skip the row, so it would never be sent."""
    await scene.daemon()
    win = await scene.due_win()
    person = await asyncpg.connect(scene.database.owner, server_settings={"application_name": "psql"})
    async with person.transaction():
        await person.execute("select from predictu_dispatch.callback where request_id = $1 for update", win)
        codes, text = await scene.why(win)
        assert codes == ["row_locked"]
        in_order(text, f"has locked its row: database session {person.get_server_pid()} (psql)")
    await person.close()
    codes, text = await scene.why(win)
    assert codes == ["due"]
    in_order(text, "nothing that this command can see blocks it", "a claim takes it within poll_interval_s")


@pytest.mark.parametrize("state", ["ready", "overdue", "in_flight", "waiting"])
async def test_a_prepared_transaction_is_named_with_its_id_and_owner(
    embedded_with_prepared: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """It has no session; it holds a callback or a bet until somebody ends it."""
    monkeypatch.setenv("COLUMNS", "80")
    database = embedded_with_prepared
    async with open_harness(database) as harness:
        scene = Scene(harness=harness, desk=command_line_for(tmp_path, database.support), database=database)
        await scene.daemon()
        table = "callback" if state == "ready" else "bet"
        if state == "in_flight":
            named = await harness.place("held")
            await harness.lease(named)
        elif state == "waiting":
            placement = await harness.place("held")
            named = await harness.end("BET_WIN", "held")
            await harness.lease(placement)
        else:
            named = await scene.due_win("held")
        if state == "overdue":
            await harness.let_deadline_pass(named)
        lock = f"select from predictu_dispatch.{table} where bet_id = 'held' for update"
        await harness.owner.execute(f"begin; {lock}; prepare transaction 'trade-7'")
        codes, text = await scene.why(named)
        expected = {
            "ready": ["row_locked"],
            "overdue": ["deadline_passed", "row_locked"],
            "in_flight": ["in_flight", "row_locked"],
            "waiting": ["waiting"],
        }
        assert codes == expected[state]
        owner = await harness.owner.fetchval("select current_user")
        locked = "row" if state == "ready" else "bet held"
        in_order(text, f"has locked its {locked}: the prepared transaction trade-7 of {owner}", "'trade-7'")
        assert ("within seconds" in text, "when its lock is released" in text) == (False, state == "overdue")
        await harness.owner.execute("rollback prepared 'trade-7'")
        assert "row_locked" not in (await scene.why(named))[0]


async def test_a_locked_bet_stops_no_claim_and_is_not_named(scene: Scene) -> None:
    await scene.daemon()
    win = await scene.due_win()
    async with connected(scene.database.owner, 1) as [other], other.transaction():
        await other.execute("select from predictu_dispatch.bet for update")
        assert (await scene.why(win))[0] == ["due"]


@pytest.mark.parametrize(
    ("name", "arguments", "blocks_most"),
    [
        ("why_callback", f"'{UNKNOWN}', null", 50),
        ("why_ahead", f"'{OPERATOR}', 'interactive', now(), 1001", 200),
        ("why_daemons", f"'{OPERATOR}', 'interactive'", 50),
    ],
)
async def test_a_long_backlog_does_not_slow_the_queries(
    scene: Scene, name: str, arguments: str, blocks_most: int
) -> None:
    harness = scene.harness
    await scene.daemon()
    await harness.owner.execute(
        "insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params)"
        " select $1, gen_random_uuid(), 'PING', 'interactive', 'ready', '{}' from generate_series(1, 30000)",
        OPERATOR,
    )
    await harness.owner.execute(f"prepare {name} as {query(name)}")
    plan = await harness.owner.fetchval(f"explain (analyze, buffers, format json) execute {name}({arguments})")
    root = json.loads(plan)[0]["Plan"]
    assert root["Shared Hit Blocks"] + root["Shared Read Blocks"] < blocks_most
