"""The command retain."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from predictu_dispatch.flow import retention as flow
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, Harness, connected
from tests.support.histories import KEEP_MONTHS, HistoryBuilder, make_months, part_of
from tests.support.postgres import Database
from tests.support.retention import CUTOFF, LONG_AGO
from tests.support.stepped_clock import stepped_clock


@pytest.fixture
async def histories(harness: Harness) -> HistoryBuilder:
    await make_months(harness.owner)
    return HistoryBuilder(harness)


@pytest.fixture
def retention_login(tmp_path: Path, database: Database) -> CommandLine:
    """A command line with the rights of the retention role."""
    return command_line_for(tmp_path, database.retention)


async def test_retain_reports_what_is_old_and_then_what_it_removed(
    harness: Harness, database: Database, histories: HistoryBuilder, retention_login: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "support").mkdir()
    with retention_login.config.open("a", encoding="utf-8") as file:
        file.write(f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n")
    await histories.make("won", LONG_AGO)
    await histories.make("open", LONG_AGO)
    everything = await harness.everything()
    code, text, _ = await retention_login.run("retain", "--dry-run")
    assert code == 0
    assert f"A run removes what ended before {CUTOFF:%Y-%m-%d}T00:00:00" in text
    assert f"Old audit: {part_of(LONG_AGO)}" in text
    assert text.endswith("Nothing was removed.\n")
    assert await harness.everything() == everything
    code, text, _ = await retention_login.run("retain")
    assert code == 0
    assert "Removed bets: 1, callbacks: 2" in text
    assert f"Audit {part_of(LONG_AGO)}: 1 rows kept for their callbacks or a legal hold" in text
    [won] = [history for history in histories.made if history.path == "won"]
    support = command_line_for(tmp_path / "support", database.support)
    for verb in ("show", "why", "retry"):
        code, _, text = await support.run(verb, str(won.requests[1]))
        assert code == 1
        removed = f"BET_WIN {won.requests[1]} of operator {OPERATOR} ended delivered; retention removed it"
        assert text.startswith(removed), verb
    code, _, text = await support.run("show", "--bet", OPERATOR, won.bet_id or "")
    assert code == 1
    assert text.startswith(f"bet {won.bet_id} of operator {OPERATOR} ended closed; retention removed it at 2")
    code, text, _ = await retention_login.run("retain", "--json")
    result = json.loads(text)
    assert (code, result["is_complete"], result["bets"], result["callbacks"]) == (0, True, 0, 0)


async def test_retain_removes_nothing_if_the_databases_clock_is_years_ahead(
    harness: Harness, histories: HistoryBuilder, retention_login: CommandLine
) -> None:
    with retention_login.config.open("a", encoding="utf-8") as file:
        file.write(f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n")
    await histories.make("won", LONG_AGO)
    everything = await harness.everything()
    with stepped_clock() as host:
        # The same as a database that is ahead.
        host.step(-10 * 365 * 86_400.0)
        process = await asyncio.create_subprocess_exec(
            *retention_login.process("retain"),
            env={**os.environ, **host.environment},
            stderr=asyncio.subprocess.PIPE,
        )
        _, stderr = await process.communicate()
    assert process.returncode == 1
    assert b"the database's clock is 3650 d ahead of this host's" in stderr
    assert await harness.everything() == everything


async def test_retain_explains_why_it_failed(
    harness: Harness, histories: HistoryBuilder, retention_login: CommandLine, database: Database, tmp_path: Path
) -> None:
    months = f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n"
    config = retention_login.config.read_text(encoding="utf-8")
    retention_login.config.write_text(config + months, encoding="utf-8")
    locked = await histories.make("won", LONG_AGO)
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.bet where bet_id = $1 for update", locked.bet_id)
        code, text, _ = await retention_login.run("retain")
    assert code == 1
    assert "Locked by other transactions: 1 bets and callbacks; the next run removes them." in text
    async with connected(database.retention, 1) as [other], other.transaction():
        await other.execute("select predictu_dispatch.purge_finished($1, 1)", KEEP_MONTHS)
        code, _, text = await retention_login.run("retain")
    assert code == 1
    assert "another retention run is active" in text
    # The daemon's login may not.
    (tmp_path / "daemons").mkdir()
    code, _, text = await command_line_for(tmp_path / "daemons", database.dispatcher).run("retain")
    assert code == 1
    assert "needs the role predictu_retention" in text
    retention_login.config.write_text(config + "[daemon]\naudit_retention_months = 0\n", encoding="utf-8")
    code, text, _ = await retention_login.run("retain")
    assert (code, text) == (0, "everything is kept: [daemon] audit_retention_months is 0\n")


async def test_an_unavailable_lock_is_exit_code_1_not_3(
    harness: Harness, histories: HistoryBuilder, retention_login: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_LOCK_TRIALS", 2)
    with retention_login.config.open("a", encoding="utf-8") as file:
        file.write(f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n")
    await histories.make("won", LONG_AGO)
    async with harness.owner.transaction():
        await harness.owner.execute("lock table predictu_dispatch.request_tombstone in access exclusive mode")
        code, text, _ = await retention_login.run("retain")
    assert code == 1
    assert "The scan stopped early, and the next run continues it: canceling statement due to" in text
    assert f"Audit {part_of(LONG_AGO)}: 2 rows kept for their callbacks or a legal hold" in text
    signature = "predictu_dispatch.expired_audit(integer, text)"
    await harness.owner.execute(f"alter function {signature} set lock_timeout = '50ms'")
    async with harness.owner.transaction():
        await harness.owner.execute("lock table predictu_dispatch.attempt_default in access exclusive mode")
        code, _, text = await retention_login.run("retain")
    assert code == 1
    assert text.startswith("canceling statement due to lock timeout: another transaction has locked a table;")
    code, text, _ = await retention_login.run("retain")
    assert (code, "Removed bets: 1, callbacks: 2" in text) == (0, True)
