"""Go's golang.org/x/mod/sumdb accepts the logs that the sealer makes, and their export."""

import random
from collections import Counter
from pathlib import Path

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.edge.postgres.audit_reader import open_audit_reader
from predictu_dispatch.evidence.export import export_log
from tests.support.foreign_logs import ForeignClaims, refused
from tests.support.foreign_verifier import ACCEPTED, foreign_verifier, tree
from tests.support.harness import Harness
from tests.support.postgres import Database
from tests.support.sealing import ORIGIN, SEED, insert_attempts, open_sealer


def vkey_of(origin: str) -> str:
    return str(VerifierKey.of_seed(origin, SEED))


async def test_it_accepts_every_checkpoint_entry_and_growth(harness: Harness, database: Database) -> None:
    foreign_verifier()
    foreign = ForeignClaims(vkey_of=vkey_of, rng=random.Random(1))
    async with open_sealer(database.dispatcher) as sealer:
        for count in (1, 254, 1, 300, 1, 1_000, 7):
            await insert_attempts(harness.owner, count)
            await insert_attempts(harness.owner, 3, "op_off")
            await sealer.seal_all()
            await foreign.keep_checkpoints(harness.owner)
    claims = await foreign.read(harness.owner)
    assert refused(claims) == []
    kinds = Counter((claim["kind"], claim["vkey"].partition("+")[0].rpartition("/")[2]) for claim in claims)
    assert kinds["checkpoint", "op_abc123"] >= 7
    assert kinds["checkpoint", "op_off"] >= 7
    assert kinds["consistency", "op_abc123"] >= 6
    assert kinds["inclusion", "op_abc123"] == 200
    assert kinds["inclusion", "op_off"] == 22


async def test_it_refuses_a_row_that_was_changed_after_it_was_sealed(harness: Harness, database: Database) -> None:
    foreign_verifier()
    async with open_sealer(database.dispatcher) as sealer:
        await insert_attempts(harness.owner, 20)
        await sealer.seal_all()
    await harness.owner.execute("alter table predictu_dispatch.attempt_record disable trigger attempt_append_only")
    await harness.owner.execute(
        "update predictu_dispatch.attempt_record set verdict = 'rejected'"
        " where report_id = (select min(report_id::text)::uuid from predictu_dispatch.attempt_record)"
    )
    claims = await ForeignClaims(vkey_of=vkey_of, rng=random.Random(1)).read(harness.owner)
    [(claim, verdict)] = refused(claims)
    assert claim["kind"] == "inclusion"
    assert verdict == 'refused: "invalid transparency proof"'


async def test_it_accepts_an_export_and_the_next_one_into_the_same_folder(
    harness: Harness, database: Database, tmp_path: Path
) -> None:
    verifier = foreign_verifier()
    claim = tree(tmp_path / "op_abc123", vkey_of(f"{ORIGIN}/op_abc123"))
    async with (
        open_sealer(database.dispatcher) as sealer,
        open_audit_reader(database.auditor, application_name="export") as reader,
    ):
        for count in (10, 240, 5, 0, 700):
            await insert_attempts(harness.owner, count)
            await sealer.seal_all()
            await export_log(reader, "op_abc123", tmp_path, since=None)
            assert verifier.verdicts([claim]) == [ACCEPTED], count
    tile = tmp_path / "op_abc123" / "tile" / "0" / "001"
    tile.write_bytes(bytes(8_192))
    assert not verifier.accepts(claim)
