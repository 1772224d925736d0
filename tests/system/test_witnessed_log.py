"""A real daemon has its logs cosigned by a real reference operator, and names one that refuses."""

import sqlite3
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from predictu_dispatch.core.merkle.checkpoint import open_checkpoint
from predictu_dispatch.core.merkle.note import NoteError, VerifierKey
from predictu_dispatch.edge.config.keys import create_key_file
from tests.reference_operator.client import Operator, running
from tests.support.daemons import Daemon, until
from tests.support.environment import open_environment
from tests.support.foreign_verifier import checkpoint, foreign_verifier
from tests.support.harness import OPERATOR
from tests.support.postgres import Database

ORIGIN = "audit.predictu.example"
MINUTE_S = 100.0
"""A checkpoint is stored in each minute, and sent within ten seconds."""


def seed_of(file: Path) -> bytes:
    key = load_pem_private_key(file.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())


def table_of(name: str, operator: Operator) -> dict[str, str]:
    return {"name": name, "vkey": operator.witness_vkey, "url": operator.url.removesuffix("/predictu")}


async def served(daemon: Daemon) -> str:
    async with daemon.session.get(f"{daemon.url}/audit/{OPERATOR}/checkpoint") as answer:
        return await answer.text() if answer.status == 200 else ""


async def test_the_served_checkpoint_has_the_cosignature_and_a_refusal_is_logged_and_measured(
    tmp_path: Path, database: Database
) -> None:
    create_key_file(tmp_path / "audit.pem", "EdDSA")
    log_key = VerifierKey.of_seed(f"{ORIGIN}/{OPERATOR}", seed_of(tmp_path / "audit.pem"))
    folders = [tmp_path / name for name in ("good", "ahead")]
    for folder in folders:
        folder.mkdir()
    # This one has seen more of the log than there is: the database was restored meanwhile.
    async with running(folders[1], "--log-vkey", str(log_key)):
        pass
    with closing(sqlite3.connect(folders[1] / "wallet.db")) as sql, sql:
        sql.execute(
            "insert into cosigned_logs values (?, 9999, ?, '2026-01-01T00:00:00.000Z')", [log_key.name, bytes(32)]
        )
    async with (
        open_environment(tmp_path, database) as environment,
        running(folders[0], "--log-vkey", str(log_key)) as good,
        running(folders[1], "--log-vkey", str(log_key)) as ahead,
    ):
        for number in range(5):
            await environment.harness.place(f"b-{number}")
        daemon = await environment.fleet.start(
            "host-1",
            audit={
                "origin": ORIGIN,
                "key_file": "audit.pem",
                "seal_s": 0.2,
                "witness": [table_of("good", good), table_of("ahead", ahead)],
            },
        )
        await environment.until_all_final()
        key = VerifierKey.parse(good.witness_vkey)

        async def is_cosigned() -> bool:
            try:
                opened = open_checkpoint(await served(daemon), [log_key], [key])
            except NoteError:
                return False
            return opened.checkpoint.size > 5 and len(opened.cosignatures) == 1

        await until("the newest checkpoint is cosigned", is_cosigned, within_s=MINUTE_S)
        note = await served(daemon)
        assert foreign_verifier().accepts(checkpoint(note, str(log_key), witnesses=[good.witness_vkey]))

        async def is_measured() -> bool:
            return await daemon.metric("audit_witness_refused", OPERATOR, "ahead") == 1.0

        await until("the refusal is measured", is_measured)
        assert await daemon.metric("audit_witness_refused", OPERATOR, "good") == 0.0
        assert await daemon.metric("audit_witness_behind_seconds", OPERATOR, "good") == 0.0
        assert (await daemon.metric("audit_witness_behind_seconds", OPERATOR, "ahead") or 0.0) > 0.0
        # The witnesses know no log of the other operators, and refuse those too.
        [refused, *_] = [line for line in daemon.lines("audit.witness_refused") if line["operator_id"] == OPERATOR]
        assert (refused["level"], refused["operator_id"], refused["witness"]) == ("warning", OPERATOR, "ahead")
        assert refused["reason"].startswith("it has cosigned 9999 entries, and our log has ")
        # The callbacks of the test, and of everybody else, do not wait for a witness.
        assert await environment.states() == {"delivered": 5}
