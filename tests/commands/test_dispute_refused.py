"""What `dispute` refuses: no bundle is made, and the message says why."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.disputes import (
    BET,
    Disputes,
    sealed,
)
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database

pytestmark = pytest.mark.usefixtures("_eighty_columns")


@pytest.fixture
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


async def test_a_changed_row_makes_no_bundle(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    placement, _ = await disputes.whole_bet()
    await sealed(database)
    await harness.owner.execute("alter table predictu_dispatch.attempt_record disable trigger all")
    await harness.owner.execute(
        "update predictu_dispatch.attempt_record set response_status = 402 where request_id = $1 and attempt = 2",
        placement,
    )
    path = auditor.folder / "bundle.zip"
    code, _, stderr = await auditor.run("dispute", "--bet", OPERATOR, BET, "-o", str(path))
    assert code == 1
    assert f"attempt 2 of BET_MAKE {placement}: the row was changed after it was sealed; no bundle was made" in stderr
    assert "predictu-dispatch audit verify" in stderr
    assert not path.exists()


DAMAGE = {
    "a hash of a tile": "update predictu_dispatch.audit_tile set hashes = set_byte(hashes, 0, get_byte(hashes, 0) # 1)",
    "the root": "update predictu_dispatch.audit_head set checkpoint = replace(checkpoint, E'\\n', E'\\n1')",
    "the checkpoint": "update predictu_dispatch.audit_head set checkpoint = 'nonsense'",
}


@pytest.mark.parametrize("statement", DAMAGE.values(), ids=DAMAGE)
async def test_a_damaged_log_makes_no_bundle(
    statement: str, disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database
) -> None:
    await disputes.whole_bet()
    await sealed(database)
    for table in ("audit_tile", "audit_head"):
        await harness.owner.execute(f"alter table predictu_dispatch.{table} disable trigger all")
    await harness.owner.execute(statement)
    path = auditor.folder / "bundle.zip"
    code, _, stderr = await auditor.run("dispute", "--bet", OPERATOR, BET, "-o", str(path))
    assert code == 1
    assert "no bundle was made: run predictu-dispatch audit verify" in one_line(stderr)
    assert not path.exists()


async def test_what_cannot_be_done_is_said(
    disputes: Disputes, harness: Harness, auditor: CommandLine, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "bundle.zip"

    async def refused(*bet: str, line: CommandLine = auditor) -> str:
        code, _, stderr = await line.run("dispute", "--bet", *bet, "-o", str(path))
        assert code == 1
        return one_line(stderr)

    await disputes.whole_bet()
    assert "there is no log yet" in await refused(OPERATOR, BET)
    await sealed(database)
    assert f"operator {OPERATOR} has no bet b-9" in await refused(OPERATOR, "b-9")
    assert "unknown operator op_x" in await refused("op_x", BET)
    for dsn in (database.support, database.stranger):
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        assert "needs the role predictu_auditor" in await refused(OPERATOR, BET, line=command_line_for(folder, dsn))
    await harness.owner.execute("set session_replication_role = replica")
    await harness.owner.execute("delete from predictu_dispatch.bet")
    await harness.owner.execute(
        "insert into predictu_dispatch.bet_tombstone (operator_id, bet_id, state) values ($1, $2, 'closed')",
        OPERATOR,
        BET,
    )
    assert f"bet {BET} of operator {OPERATOR} ended closed; retention removed it at" in await refused(OPERATOR, BET)
    assert not path.exists()
    path.write_text("mine")
    await disputes.whole_bet("b-3")
    assert f"{path} exists and is not changed; give another file: -o FILE" in await refused(OPERATOR, "b-3")
    assert path.read_text() == "mine"
