"""Daemons that seal: what they serve, log and measure; one history although they are killed."""

import asyncio
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from predictu_dispatch.core.merkle import checkpoint, tree
from predictu_dispatch.core.merkle.note import NoteError, VerifierKey
from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment
from tests.support.foreign_verifier import ACCEPTED, consistency, foreign_verifier, inclusion
from tests.support.foreign_verifier import checkpoint as signed_checkpoint
from tests.support.harness import OPERATOR, Harness, open_harness
from tests.support.postgres import Database
from tests.support.sealing import ORIGIN, SEED, check_logs, insert_attempts, open_sealer

LOG = f"{ORIGIN}/{OPERATOR}"
AUDIT = {"origin": ORIGIN, "key_file": "audit.pem", "seal_s": 0.2}


def vkey(seed: bytes, log: str = LOG) -> VerifierKey:
    return VerifierKey.of_seed(log, seed)


async def deliver(environment: Environment, first: int, count: int) -> None:
    for number in range(first, first + count):
        await environment.harness.place(f"b-{number}")
    await environment.until_all_final()


async def until_sealed(environment: Environment, daemon: Daemon) -> str:
    """Waits until the daemon serves a checkpoint of all rows; returns it."""
    note = ""

    async def is_sealed() -> bool:
        nonlocal note
        rows = await environment.harness.owner.fetchval(
            "select count(*) + 1 from predictu_dispatch.attempt where operator_id = $1", OPERATOR
        ) + await environment.harness.owner.fetchval(
            "select count(*) + count(retired_at) from predictu_dispatch.signing_key where operator_id = $1", OPERATOR
        )
        status, note = await daemon.get(f"/audit/{OPERATOR}/checkpoint")
        return status == 200 and note.split("\n")[1] == str(rows)

    await until("everything is sealed", is_sealed)
    return note


async def test_a_daemon_serves_prints_and_measures_checkpoints(environment: Environment) -> None:
    key = create_key_file(environment.fleet.folder / "audit.pem", "EdDSA")
    http = {"keys_listen": "127.0.0.1:0"}
    daemon = await environment.fleet.start("host-1", audit=AUDIT, http=http)
    await deliver(environment, 0, 5)
    note = await until_sealed(environment, daemon)
    opened = checkpoint.open_checkpoint(note, [vkey(key.ed25519_seed)])
    assert opened.checkpoint.origin == LOG
    sizes = await check_logs(environment.harness.owner)
    assert opened.checkpoint.size == sizes[OPERATOR]

    published = daemon.lines("daemon.started")[0]["keys_http"]
    async with daemon.session.get(f"{published}/audit/{OPERATOR}/checkpoint") as response:
        assert (response.status, await response.text()) == (200, note)
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    for path in ("/audit/op_unknown/checkpoint", "/audit//checkpoint", f"/audit/{OPERATOR}/checkpoint/"):
        assert (await daemon.get(path))[0] == 404

    await daemon.until_logged("audit.checkpoint")
    lines = [line for line in daemon.lines("audit.checkpoint") if line["operator_id"] == OPERATOR]
    for line in lines:
        logged = checkpoint.open_checkpoint(line["checkpoint"], [vkey(key.ed25519_seed)]).checkpoint
        assert (line["origin"], line["size"], line["root"]) == (logged.origin, logged.size, logged.root.hex())
    stored = await environment.harness.owner.fetch(
        "select checkpoint from predictu_dispatch.audit_checkpoint where operator_id = $1 order by size", OPERATOR
    )
    assert [line["checkpoint"] for line in lines] == [row["checkpoint"] for row in stored]

    assert await daemon.metric("audit_log_size", OPERATOR) == sizes[OPERATOR]
    unsealed_s = await daemon.metric("audit_unsealed_seconds")
    assert unsealed_s is not None
    assert unsealed_s < 5


async def test_a_daemon_without_an_origin_measures_that_nobody_seals_the_logs(environment: Environment) -> None:
    create_key_file(environment.fleet.folder / "audit.pem", "EdDSA")
    daemon = await environment.fleet.start("host-1", audit=AUDIT)
    await until_sealed(environment, daemon)
    daemon.terminate()
    assert await daemon.exited() == 0
    daemon = await environment.fleet.start("host-2")

    async def is_late() -> bool:
        return (await daemon.metric("audit_unsealed_seconds") or 0.0) > 1.0

    await until("nobody seals", is_late)
    assert (await daemon.metric("audit_log_size", OPERATOR) or 0.0) > 0.0


async def test_a_rotated_key_signs_first_and_the_previous_one_signs_too(environment: Environment) -> None:
    folder: Path = environment.fleet.folder
    old = create_key_file(folder / "audit.pem", "EdDSA")
    daemon = await environment.fleet.start("host-1", audit=AUDIT)
    await deliver(environment, 0, 1)
    note = await until_sealed(environment, daemon)
    new = create_key_file(folder / "audit.next.pem", "EdDSA")
    (folder / "audit.pem").rename(folder / "audit.previous.pem")
    (folder / "audit.next.pem").rename(folder / "audit.pem")
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.until_logged("config.reloaded")
    await deliver(environment, 1, 1)
    note = await until_sealed(environment, daemon)
    for key in (old, new):
        checkpoint.open_checkpoint(note, [vkey(key.ed25519_seed)])
    assert [line.split()[1] for line in note.split("\n\n")[1].splitlines()] == [LOG, LOG]
    first, _, _ = note.partition("\n\n")[2].partition("\n")
    checkpoint.open_checkpoint(f"{note.partition(chr(10) * 2)[0]}\n\n{first}\n", [vkey(new.ed25519_seed)])
    (folder / "audit.previous.pem").unlink()
    daemon.process.send_signal(signal.SIGHUP)
    await daemon.until_logged("config.reloaded", times=2)
    await deliver(environment, 2, 1)
    note = await until_sealed(environment, daemon)
    checkpoint.open_checkpoint(note, [vkey(new.ed25519_seed)])
    with pytest.raises(NoteError):
        checkpoint.open_checkpoint(note, [vkey(old.ed25519_seed)])


async def test_daemons_that_are_killed_write_one_history(environment: Environment, database: Database) -> None:
    """Two at once; each kill ends a process at a random moment while bets are delivered."""
    key = create_key_file(environment.fleet.folder / "audit.pem", "EdDSA")
    chance = random.Random(5)
    daemons = [await environment.fleet.start(name, audit=AUDIT | {"seal_s": 0.1}) for name in ("host-1", "host-2")]
    for number in range(4):
        placing = asyncio.create_task(deliver(environment, 10 * number, 10))
        await asyncio.sleep(chance.uniform(0, 0.3))
        victim = daemons.pop(0)
        victim.kill()
        async with open_harness(database) as apart:
            await replace(environment, harness=apart).expire_leases(victim.instance)
        daemons.append(await environment.fleet.start(f"host-{number + 3}", audit=AUDIT | {"seal_s": 0.1}))
        await placing
    note = await until_sealed(environment, daemons[0])
    sizes = await check_logs(environment.harness.owner)
    assert checkpoint.open_checkpoint(note, [vkey(key.ed25519_seed)]).checkpoint.size == sizes[OPERATOR]


async def test_an_origin_without_its_key_does_not_start(environment: Environment) -> None:
    daemon = environment.fleet.spawn("host-1", audit=AUDIT)
    assert await daemon.exited() == 2
    assert "predictu-dispatch keys new --audit" in daemon.log_text


async def test_go_accepts_each_checkpoint_each_proof_and_the_consistency_of_all(
    harness: Harness, database: Database
) -> None:
    verifier = foreign_verifier()
    chance = random.Random(1)
    notes: list[str] = []
    async with open_sealer(database.dispatcher) as sealer:
        for _ in range(12):
            await sealer.seal_all()
            notes.append(
                await harness.owner.fetchval(
                    "select checkpoint from predictu_dispatch.audit_head where operator_id = $1", OPERATOR
                )
            )
            await insert_attempts(harness.owner, chance.randint(1, 300))
    tiles = {
        (row["level"], row["tile"]): row["hashes"]
        for row in await harness.owner.fetch(
            "select level, tile, hashes from predictu_dispatch.audit_tile where operator_id = $1", OPERATOR
        )
    }

    def read(level: int, number: int, width: int) -> bytes:
        return bytes(tiles[level, number][: width * 32])

    key = str(vkey(SEED))
    sizes = [int(note.split("\n")[1]) for note in notes]
    claims = [signed_checkpoint(note, key) for note in notes]
    for index in (0, *(chance.randrange(sizes[-1]) for _ in range(50))):
        leaf = read(0, index // 256, index % 256 + 1)[-32:]
        claims.append(inclusion(notes[-1], key, index, leaf, tree.inclusion_proof(index, sizes[-1], read)))
    for old in range(len(notes)):
        for new in range(old + 1, len(notes)):
            proof = tree.consistency_proof(sizes[old], sizes[new], read)
            claims.append(consistency(notes[old], notes[new], key, proof))
    verdicts = verifier.verdicts(claims)
    assert verdicts == [ACCEPTED] * len(claims)
