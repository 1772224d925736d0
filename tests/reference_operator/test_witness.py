"""The reference operator cosigns what continues the log it knows, and nothing else."""

import asyncio
import itertools
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey, parse, parse_signatures, verify
from predictu_dispatch.core.merkle.note import assemble as assemble_note
from tests.reference_operator.client import KEY, OPERATOR_ID, Operator, running
from tests.support.audit_logs import GrowingLog

ORIGIN = f"audit.predictu.example/{OPERATOR_ID}"
LOG = GrowingLog(ORIGIN)
FORK = GrowingLog(ORIGIN, "forged")


async def add(operator: Operator, body: str | bytes) -> tuple[int, str, str]:
    """Submits a checkpoint; returns status, content type and body."""
    url = operator.url.replace("/predictu", "/add-checkpoint")
    async with operator.http.post(url, data=body if isinstance(body, bytes) else body.encode()) as answer:
        return answer.status, answer.content_type, await answer.text()


async def test_it_cosigns_every_size_that_continues_the_last_one_also_after_a_kill(tmp_path: Path) -> None:
    sizes = [0, 0, 1, 2, 3, 3, 8, 255, 257, 513, 70_000, 70_001]
    vkeys = set()
    for old, new in itertools.pairwise(sizes):
        async with running(tmp_path, "--log-vkey", LOG.vkey) as operator:
            vkeys.add(operator.witness_vkey)
            status, _, lines = await add(operator, LOG.request(old, new))
            assert status == 200, (old, new, lines)
            key = VerifierKey.parse(operator.witness_vkey)
            note = verify(assemble_note(LOG.text(new), parse_signatures(lines)), [key])
            [signature] = note.signatures
            assert signature.key.algorithm is Algorithm.COSIGNATURE_V1
            assert abs((signature.time_s or 0) - time.time()) < 60
            operator.process.kill()
            # Otherwise the signal that ends an operator reaps it, and asyncio reports 255.
            await operator.process.wait()
    assert len(vkeys) == 1, "the key is kept"
    assert (tmp_path / "wallet.db-witness.pem").stat().st_mode & 0o777 == 0o600


async def test_a_fork_a_rollback_and_a_wrong_old_size_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, "--log-vkey", LOG.vkey) as operator:
        assert (await add(operator, LOG.request(0, 300)))[0] == 200
        conflict = (409, "text/x.tlog.size", "300\n")
        assert await add(operator, LOG.request(0, 400)) == conflict
        assert await add(operator, LOG.request(200, 400)) == conflict
        assert await add(operator, LOG.request(301, 400)) == conflict
        # Rolled back: an older checkpoint, also with the size that the witness has.
        assert await add(operator, LOG.request(200, 250)) == conflict
        assert (await add(operator, f"old 300\n\n{LOG.checkpoint(250)}"))[0] == 400
        # Forked: another history of the same size, and of a larger one.
        assert await add(operator, FORK.request(300, 300)) == conflict
        assert (await add(operator, FORK.request(300, 400)))[0] == 422
        old, *proof = LOG.request(300, 400).partition("\n\n")[0].split("\n")
        for altered in (proof[:-1], [*proof, proof[0]], proof[::-1], []):
            assert (await add(operator, "\n".join([old, *altered, "", LOG.checkpoint(400)])))[0] == 422
        assert (await add(operator, LOG.request(300, 400)))[0] == 200
    with closing(sqlite3.connect(tmp_path / "wallet.db")) as sql:
        assert sql.execute("select origin, size from cosigned_logs").fetchall() == [(ORIGIN, 400)]
        for statement in ("delete from cosigned_logs", "update cosigned_logs set size = 399"):
            with pytest.raises(sqlite3.IntegrityError):
                sql.execute(statement)


async def test_only_checkpoints_that_a_known_key_of_a_known_log_signed_are_cosigned(tmp_path: Path) -> None:
    next_key = GrowingLog(ORIGIN, seed=b"n" * 32)
    thief = GrowingLog(ORIGIN, seed=b"t" * 32)
    other = GrowingLog("audit.predictu.example/op_other")
    async with running(tmp_path, "--log-vkey", LOG.vkey, "--log-vkey", next_key.vkey) as operator:
        assert (await add(operator, other.request(0, 5)))[0] == 404
        assert (await add(operator, thief.request(0, 5)))[0] == 403
        # While keys rotate, either signature or both are on it; unknown ones are ignored.
        both = assemble_note(
            LOG.text(5), [*parse(thief.checkpoint(5)).signatures, *parse(next_key.checkpoint(5)).signatures]
        )
        assert (await add(operator, f"old 0\n\n{both}"))[0] == 200
        assert (await add(operator, LOG.request(5, 6)))[0] == 200
        # The signature of another size.
        altered = assemble_note(LOG.text(7), parse(LOG.checkpoint(6)).signatures)
        assert (await add(operator, LOG.request(6, 7).partition("\n\n")[0] + f"\n\n{altered}"))[0] == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"old 0",
        b"old 0\n\n",
        LOG.request(0, 5).replace("old 0", "old 00").encode(),
        LOG.request(0, 5).replace("old 0", "old -1").encode(),
        LOG.request(0, 5).replace("old 0", "old 9223372036854775808").encode(),
        LOG.request(0, 5).replace("old 0", "old 0\n").encode(),
        LOG.request(0, 5).replace("old 0", "old 0\nAAAA").encode(),
        LOG.request(0, 5).replace("old 0", "old 0" + "\n" + "\n".join(["A" * 43 + "="] * 64)).encode(),
        LOG.request(0, 5)[:-1].encode(),
        LOG.request(0, 5).replace("—", "-").encode(),
    ],
)
async def test_a_malformed_request_is_answered_400(tmp_path: Path, body: bytes) -> None:
    async with running(tmp_path, "--log-vkey", LOG.vkey) as operator:
        assert (await add(operator, body))[0] == 400


async def test_of_many_at_once_each_size_is_continued_only_once(tmp_path: Path) -> None:
    """Two that continue one size would make two histories."""
    async with running(tmp_path, "--log-vkey", LOG.vkey) as operator:
        answers = await asyncio.gather(*(add(operator, LOG.request(0, size)) for size in range(1, 41)))
        cosigned = [status for status, _, _ in answers if status == 200]
        assert len(cosigned) == 1
        assert sorted({status for status, _, _ in answers}) == [200, 409]


async def test_without_a_logs_key_there_is_no_witness(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        assert operator.witness_vkey == ""
        assert (await add(operator, LOG.request(0, 5)))[0] == 404
    assert not (tmp_path / "wallet.db-witness.pem").exists()


async def test_a_wrong_key_or_name_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "predictu.pem").write_bytes(KEY.as_pem(private=False))
    for options, message in (
        (("--log-vkey", LOG.vkey.replace("+", "x+", 1)), "the id is not that of the name and the key"),
        (("--log-vkey", "x"), "is not of the form name+id+key"),
        (("--log-vkey", LOG.vkey, "--witness-name", "a name"), "has a space or a plus"),
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "predictu_dispatch.reference_operator", "--operator-id", OPERATOR_ID),
            *("--database", str(tmp_path / "w.db"), "--public-key", str(tmp_path / "predictu.pem"), *options),
            stderr=asyncio.subprocess.PIPE,
        )
        _, stderr = await process.communicate()
        assert process.returncode == 2
        assert message in stderr.decode()
