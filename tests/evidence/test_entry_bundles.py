"""An export has the entries in bundles, so that its rows can be verified from the files alone."""

from pathlib import Path

import pytest

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.edge.postgres.audit_reader import AuditReader, open_audit_reader
from predictu_dispatch.evidence import entry_bundles
from predictu_dispatch.evidence.export import export_log
from tests.support.audit_rows import add_attempts, fill, know
from tests.support.foreign_verifier import ACCEPTED, foreign_verifier, tree
from tests.support.harness import Connection, Harness
from tests.support.postgres import Database
from tests.support.sealing import ORIGIN, SEED, TestSealer, open_sealer

VKEY = str(VerifierKey.of_seed(f"{ORIGIN}/op_a", SEED))
_REMOVE = """
with gone as (
    delete from predictu_dispatch.attempt_record a using predictu_dispatch.audit_tile t, generate_series(0, 255) n
     where t.operator_id = 'op_a' and t.level = 0 and t.tile = 0 and n = any ($1)
       and substr(t.report_ids, n * 16 + 1, 16) = uuid_send(a.report_id) and a.operator_id = 'op_a' returning n
)
insert into predictu_dispatch.audit_removal (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256)
select 'op_a', '2024_01', now(), count(*), range_agg(int8range(n, n + 1)), sha256('') from gone having count(*) = $2
"""


async def filled(owner: Connection, sealer: TestSealer) -> None:
    await know(owner)
    await fill(owner, "op_a", 600)
    await sealer.seal_all()


async def exported(reader: AuditReader, folder: Path) -> tuple[int, int, int]:
    done = await export_log(reader, "op_a", folder, since=None)
    return done.bundles, done.left_out, done.unexplained


async def test_go_finds_each_row_in_the_files_and_they_name_no_player(
    harness: Harness, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of several months and kinds, over several statements, and then more of them."""
    verifier, claim = foreign_verifier(), tree(tmp_path / "op_a", VKEY)
    monkeypatch.setattr(entry_bundles, "_TILES", 2)
    async with (
        open_sealer(database.dispatcher) as sealer,
        open_audit_reader(database.auditor, application_name="export") as reader,
    ):
        await filled(harness.owner, sealer)
        assert await exported(reader, tmp_path) == (3, 0, 0)
        assert verifier.verdicts([claim]) == [ACCEPTED]
        await add_attempts(harness.owner, "op_a", 500)
        await sealer.seal_all()
        assert await exported(reader, tmp_path) == (3, 0, 0)
        assert verifier.verdicts([claim]) == [ACCEPTED]
        assert await exported(reader, tmp_path) == (0, 0, 0)
    files = [path for path in (tmp_path / "op_a" / "tile" / "entries").rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"000", "001", "002", "003", "85"}
    written = b"".join(path.read_bytes() for path in files)
    assert written.count(b'"kind":"attempt"') == 1_100
    assert written.count(b'"kind":"intervention"') == 5
    assert written.count(b'"kind":"key"') == 3
    assert written.count(b'"kind":"start"') == 1
    assert b"player" not in written


async def test_a_bundle_without_all_of_its_rows_is_left_out_and_counted(
    harness: Harness, database: Database, tmp_path: Path
) -> None:
    async with (
        open_sealer(database.dispatcher) as sealer,
        open_audit_reader(database.auditor, application_name="export") as reader,
    ):
        await filled(harness.owner, sealer)
        await harness.owner.execute("alter table predictu_dispatch.attempt_record disable trigger all")
        await harness.owner.execute(_REMOVE, [30, 31, 32, 200], 4)
        assert await exported(reader, tmp_path / "removed") == (2, 1, 0)
        await harness.owner.execute(
            "update predictu_dispatch.attempt_record set finished_at = finished_at + interval '1 microsecond'"
            " where report_id = (select encode(substr(report_ids, 17, 16), 'hex')::uuid"
            " from predictu_dispatch.audit_tile where operator_id = 'op_a' and level = 0 and tile = 1)"
        )
        assert await exported(reader, tmp_path / "changed") == (1, 2, 1)
    claims = [
        tree(tmp_path / "removed" / "op_a", VKEY, left_out=1),
        tree(tmp_path / "changed" / "op_a", VKEY, left_out=2),
        tree(tmp_path / "removed" / "op_a", VKEY),
    ]
    assert foreign_verifier().verdicts(claims) == [
        ACCEPTED,
        ACCEPTED,
        'refused: "1 bundles of entries are missing"',
    ]
