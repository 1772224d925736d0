"""`audit status`, `prove`, `checkpoint`, `key`, `policy`, `export`, and `keys new --audit`."""

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictu_dispatch.commands.audit.state import fitting
from predictu_dispatch.core.merkle.checkpoint import LogProof, open_checkpoint
from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey
from predictu_dispatch.core.merkle.tiles import tile_path, tiles_of
from predictu_dispatch.core.merkle.tree import append, leaf_hash
from predictu_dispatch.evidence.trusted_keys import read_given_keys
from tests.support.audit_rows import add_attempts
from tests.support.command_line import CommandLine, command_line_for, one_line
from tests.support.key_commands import run
from tests.support.postgres import Server
from tests.support.sealed_audit import SealedAudit, sealed_audit, tampered
from tests.support.sealing import ORIGIN, SEED, open_sealer

KEY = VerifierKey.of_seed(f"{ORIGIN}/op_a", SEED)


@pytest.fixture(scope="module")
def audit(postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedAudit]:
    with sealed_audit(postgres, template, tmp_path_factory.mktemp("export")) as audit:
        yield audit


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def configured(folder: Path, dsn: str) -> CommandLine:
    """A host with a key of the logs."""
    cli = command_line_for(folder, dsn)
    with cli.config.open("a") as file:
        file.write(f'[audit]\norigin = "{ORIGIN}"\nkey_file = "audit/audit.pem"\n')
    return cli


async def an_attempt(owner: object, where: str = "true") -> str:
    found = await owner.fetchval(  # type: ignore[attr-defined]
        f"select request_id::text from predictu_dispatch.attempt where operator_id = 'op_a' and {where} limit 1"  # noqa: S608
    )
    return str(found)


async def test_a_proof_verifies_with_the_entry_and_the_key_alone(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, owner):
        cli = command_line_for(tmp_path, database.auditor)
        request_id = await an_attempt(owner)
        code, shown = await cli.run_json("audit", "prove", request_id, "--operator", "op_a")
        assert code == 0, shown
        proof = LogProof.parse(shown["tlog_proof"])
        opened = proof.verify(leaf_hash(shown["entry"].encode()), [KEY])
        assert (opened.checkpoint.size, proof.index) == (shown["size"], shown["index"])
        assert json.loads(shown["entry"])["request_id"] == request_id
        output = tmp_path / "proof.tlog-proof"
        code, stdout, _ = await cli.run("audit", "prove", request_id, "--operator", "op_a", "-o", str(output))
        assert code == 0
        assert "proves that attempt" in one_line(stdout)
        entry = output.with_name("proof.tlog-proof.entry.json").read_bytes()
        LogProof.parse(output.read_bytes()).verify(leaf_hash(entry), [KEY])
        code, _, stderr = await cli.run("audit", "prove", request_id, "--operator", "op_a", "-o", str(output))
        assert code == 1
        assert f"{output} exists and is not changed" in one_line(stderr)
        code, stdout, _ = await cli.run("audit", "prove", request_id, "--operator", "op_a")
        assert stdout == output.read_text()


async def test_what_cannot_be_proved_is_refused_with_the_reason(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, owner):
        cli = command_line_for(tmp_path, database.auditor)
        changed = await an_attempt(owner)
        await owner.execute(
            "update predictu_dispatch.attempt_record set verdict = 'rejected' where request_id = $1::text::uuid",
            changed,
        )
        code, _, stderr = await cli.run("audit", "prove", changed, "--operator", "op_a")
        assert code == 1
        assert "its row was changed after it was sealed" in stderr
        await add_attempts(owner, "op_a", 1)
        young = await an_attempt(owner, "written_in = (select max(written_in) from predictu_dispatch.attempt)")
        code, _, stderr = await cli.run("audit", "prove", young, "--operator", "op_a")
        assert code == 1
        assert "it is not sealed yet" in stderr
        assert (await cli.run("audit", "prove", "00"))[0] == 2
        assert "no callback begins with ffffffff" in (await cli.run("audit", "prove", "ffffffff"))[2]
        code, _, stderr = await cli.run("audit", "prove", young, "--operator", "op_a", "--attempt", "9")
        assert code == 1
        assert "has no attempt 9: it has " in stderr


def test_a_table_with_long_operator_ids_fits_the_screen() -> None:
    rows = [("operator", "entries", "newest checkpoint"), ("op_a", "7", "2026-11-30T01:20:00Z")]
    assert list(fitting(rows))[1].split() == ["op_a", "7", "2026-11-30T01:20:00Z"]
    lines = list(fitting([*rows, ("o" * 60, "12", "2026-11-30T01:20:00Z")]))
    assert max(map(len, lines)) <= 80
    assert lines[-2:] == ["o" * 60, "       12  2026-11-30T01:20:00Z"]


async def test_checkpoint_prints_the_signed_note_and_status_its_size(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, _):
        cli = command_line_for(tmp_path, database.auditor)
        code, stdout, _ = await cli.run("audit", "checkpoint", "op_a")
        assert code == 0
        assert open_checkpoint(stdout, [KEY]).checkpoint.size == 910
        code, stdout, _ = await cli.run("audit", "status")
        assert code == 0
        assert max(map(len, stdout.splitlines())) <= 80
        assert "op_a          910" in stdout
        assert "never" in stdout
        assert (await cli.run("audit", "checkpoint", "op_x"))[::2] == (
            1,
            "unknown operator op_x; predictu-dispatch status lists them\n",
        )


async def test_an_export_is_the_whole_tree_and_grows_and_never_replaces_another_history(
    audit: SealedAudit, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    async with tampered(audit) as (database, owner):
        cli = command_line_for(tmp_path, database.auditor)
        code, stdout, _ = await cli.run("audit", "export", str(folder))
        assert code == 0
        assert "op_a: 910 entries, all, " in stdout
        tree_of(folder / "op_a", 910)
        await add_attempts(owner, "op_a", 300)
        async with open_sealer(database.dispatcher) as sealer:
            await sealer.seal_all()
        code, shown = await cli.run_json("audit", "export", str(folder), "--operator", "op_a")
        assert (code, shown["exported"][0]["since"], shown["exported"][0]["size"]) == (0, 910, 1210)
        assert shown["exported"][0]["tiles"] < 5
        tree_of(folder / "op_a", 1210)
        assert not (folder / "op_a" / "tile/0/003.p").exists()
        fresh = tmp_path / "fresh"
        code, _, stderr = await cli.run("audit", "export", str(fresh), "--operator", "op_a", "--since", "1211")
        assert (code, "the log of op_a has 1210 entries; nothing was exported" in stderr) == (1, True)
        assert not fresh.exists()


def tree_of(folder: Path, size: int) -> None:
    """Asserts that the folder has each tile of a tree of this size, and the checkpoint its root."""
    leaves = b""
    for level, number, width in tiles_of(size):
        content = (folder / tile_path(level, number, width)).read_bytes()
        assert len(content) == width * 32
        if level == 0:
            leaves += content
    assert open_checkpoint((folder / "checkpoint").read_bytes(), [KEY]).checkpoint.root == append(0, {}, leaves).root


async def test_another_history_is_not_exported_over_an_earlier_one(audit: SealedAudit, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    async with tampered(audit) as (database, _):
        await command_line_for(tmp_path, database.auditor).run("audit", "export", str(folder))
    before = (folder / "op_a" / "checkpoint").read_bytes()
    older = audit.server.dsn(audit.hour_before, "test_auditor")
    code, stdout, stderr = await command_line_for(tmp_path, older).run("audit", "export", str(folder))
    assert code == 1
    assert "op_b: " in stdout
    assert "the log of op_a does not continue the one in" in stderr
    assert (folder / "op_a" / "checkpoint").read_bytes() == before


async def test_a_new_key_is_private_and_its_public_half_verifies(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, owner):
        cli = configured(tmp_path, database.auditor)
        code, _, stderr = await cli.run("audit", "key", "op_a")
        assert code == 2
        assert "keys new --audit" in stderr
        code, stdout, _ = await cli.run("keys", "new", "--audit")
        assert code == 0
        assert "audit/audit.pem, readable by its owner only." in one_line(stdout)
        path = tmp_path / "audit" / "audit.pem"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        code, _, stderr = await cli.run("keys", "new", "--audit")
        assert (code, stderr.startswith(f"{path} exists and is not changed")) == (1, True)
        code, vkey, _ = await cli.run("audit", "key", "op_a")
        assert VerifierKey.parse(vkey.strip()).name == f"{ORIGIN}/op_a"
        assert f"key {vkey}" in (await cli.run("audit", "status", "op_a"))[1]
        await owner.execute(
            "insert into predictu_dispatch.legal_hold (operator_id, reason) values ('op_a', 'a dispute')"
        )
        code, policy, _ = await cli.run("audit", "policy", "op_a")
        assert code == 0
        assert "# The audit is kept for 24 months; the database refuses less than 1." in policy
        assert "everything of this operator is kept: a dispute" in policy
        assert f"log {vkey}quorum none\n" in policy
        saved = tmp_path / "policy.txt"
        saved.write_text(policy)
        assert read_given_keys([str(saved)]) == read_given_keys([vkey.strip()])


async def test_a_replaced_key_is_trusted_from_the_file_audit_vkeys(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, _):
        cli = configured(tmp_path, database.auditor)
        assert (await cli.run("keys", "new", "--audit"))[0] == 0
        code, stdout, _ = await cli.run("audit", "verify", "--operator", "op_a")
        assert (code, "no known key signed the note" in stdout) == (1, True)
        assert "if the logs' key was replaced, give the earlier one too" in one_line(stdout)
        (tmp_path / "audit.vkeys").write_text(f"{KEY}\n")
        code, stdout, _ = await cli.run("audit", "verify", "--operator", "op_a")
        assert code == 0, stdout
        _, vkey, _ = await cli.run("audit", "key", "op_a")
        _, policy, _ = await cli.run("audit", "policy", "op_a")
        logs = [line for line in policy.splitlines() if line.startswith("log ")]
        assert logs == [f"log {vkey.strip()}", f"log {KEY}"]
        code, _, stderr = await cli.run("audit", "policy", "op_nobody")
        assert (code, "unknown operator op_nobody" in stderr) == (1, True)
        _, _, stderr = await cli.run("audit", "key", "op_nobody")
        assert "op_nobody has no file in" in stderr
        # `audit key >audit.vkeys`: the shell has emptied the file by then.
        (tmp_path / "audit.vkeys").write_text("")
        assert (await cli.run("audit", "key", "op_a"))[0] == 0
        (tmp_path / "audit.vkeys").write_text("no key\n")
        code, _, stderr = await cli.run("audit", "verify")
        assert (code, "audit.vkeys, line 1: not a vkey" in stderr) == (2, True)


async def test_a_witness_of_one_operator_is_in_the_policy_of_its_log_only(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, _):
        cli = configured(tmp_path, database.auditor)
        assert (await cli.run("keys", "new", "--audit"))[0] == 0
        vkey = VerifierKey.of_seed("witness/b", SEED, Algorithm.COSIGNATURE_V1)
        with cli.config.open("a") as file:
            file.write(f'[[audit.witness]]\nname = "b"\nvkey = "{vkey}"\nurl = "https://h"\noperators = ["op_b"]\n')
        assert "quorum none" in (await cli.run("audit", "policy", "op_a"))[1]
        assert f"witness b {vkey} https://h\n" in (await cli.run("audit", "policy", "op_b"))[1]


def test_the_key_of_the_logs_needs_no_settings_and_takes_no_operator(dispatcher: Path) -> None:
    result = run(dispatcher, "keys", "new", "--audit", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["private_key_file"] == str(dispatcher.parent / "audit" / "audit.pem")
    result = run(dispatcher, "keys", "new", "op_a", "--audit")
    assert result.exit_code == 2
    assert "give either OPERATOR, or --audit or --certify alone" in result.stderr
