"""`audit verify` as a person runs it: output, exit codes, what is kept outside, and the record."""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from predictu_dispatch.core.merkle.note import VerifierKey
from tests.support.command_line import command_line_for, one_line
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Database, Server
from tests.support.sealed_audit import SealedAudit, sealed_audit, tampered
from tests.support.sealing import ORIGIN, SEED

VKEY = str(VerifierKey.of_seed(f"{ORIGIN}/op_a", SEED))
CHANGED = (
    "update predictu_dispatch.attempt_record set verdict = 'rejected' where report_id in"
    " (select report_id from predictu_dispatch.attempt_record where operator_id = 'op_a' limit 12)"
)


@pytest.fixture(scope="module")
def audit(postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedAudit]:
    with sealed_audit(postgres, template, tmp_path_factory.mktemp("export")) as audit:
        yield audit


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def fits(text: str) -> bool:
    return max(map(len, text.splitlines()), default=0) <= 80


async def test_an_untouched_audit_is_clean_and_the_result_is_recorded(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, owner):
        cli = command_line_for(tmp_path, database.auditor)
        code, stdout, stderr = await cli.run("audit", "verify", "--key", VKEY, "--against", str(audit.export))
        assert (code, stderr) == (0, "")
        assert fits(stdout)
        assert "op_a: clean; 910 entries, " in stdout
        assert "21 removed by retention" in stdout
        assert "signatures are not checked" not in stdout
        assert "clean: 1,498 rows compared in " in stdout
        rows = await owner.fetch("select * from predictu_dispatch.audit_verification order by operator_id")
        assert [(row["operator_id"], row["size"], row["faults"], row["verified_by"]) for row in rows] == [
            ("op_a", 910, 0, "test_auditor"),
            ("op_b", 609, 0, "test_auditor"),
        ]
        assert (await cli.run("audit", "verify", "--operator", "op_b", "--against", str(audit.export)))[0] == 0
        code, shown = await cli.run_json("audit", "status", "op_a")
        assert (code, shown["logs"][0]["faults"], shown["logs"][0]["verified_size"]) == (0, 0, 910)


async def test_a_fault_of_a_log_that_never_was_here_ends_with_the_next_verification(
    audit: SealedAudit, tmp_path: Path
) -> None:
    async with tampered(audit) as (database, owner):
        cli = command_line_for(tmp_path, database.auditor)
        kept = tmp_path / "kept.txt"
        kept.write_text((audit.export / "op_a" / "checkpoint").read_text().replace("/op_a", "/op_other"))
        code, stdout, _ = await cli.run("audit", "verify", "--checkpoint", str(kept))
        assert (code, "op_other: 1 fault; no log" in stdout) == (1, True)
        faults = "select faults from predictu_dispatch.audit_heads() where operator_id = 'op_other'"
        assert await owner.fetchval(faults) == 1
        assert (await cli.run("audit", "verify"))[0] == 0
        assert await owner.fetchval(faults) == 0


async def test_faults_are_named_counted_and_recorded(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit, CHANGED) as (database, owner):
        cli = command_line_for(tmp_path, database.auditor)
        code, stdout, _ = await cli.run("audit", "verify", "--key", VKEY)
        assert code == 1
        assert fits(stdout)
        assert "op_a: 12 faults; " in stdout
        assert one_line(stdout).count("the stored row is not the one that was sealed") == 10
        assert "… 12 in all: 12 changed" in stdout
        assert "op_b: clean" in stdout
        assert one_line(stdout).rpartition("12 faults: 1,498 rows compared in ")[2].startswith(tuple("0123456789"))
        code, shown = await cli.run_json("audit", "verify", "--operator", "op_a", "--key", VKEY)
        assert (code, shown["ok"], shown["faults"], shown["logs"][0]["kinds"]) == (1, False, 12, {"changed": 12})
        first = shown["logs"][0]["first_faults"][0]
        assert first["kind"] == "changed"
        assert first["subject"].startswith("attempt ")
        stored = await owner.fetchrow("select * from predictu_dispatch.audit_verification order by verified_at limit 1")
        assert stored is not None
        assert stored["faults"] == 12
        assert json.loads(stored["first_faults"])[0] == first
        _, listed, _ = await cli.run("audit", "status")
        assert fits(listed)
        assert "12 faults, " in listed
        assert "op_a: verification found faults" in listed


async def test_without_a_trusted_key_it_says_that_signatures_are_not_checked(
    audit: SealedAudit, tmp_path: Path
) -> None:
    async with tampered(audit) as (database, _):
        cli = command_line_for(tmp_path, database.auditor)
        code, stdout, _ = await cli.run("audit", "verify")
        assert code == 0
        assert "warning: signatures are not checked: there is no trusted key" in one_line(stdout)
        _, shown = await cli.run_json("audit", "verify")
        assert shown["are_signatures_checked"] is False


async def test_what_was_kept_outside_shows_a_restored_database(audit: SealedAudit, tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text(audit.kept().note)
    older = Database(
        name=audit.hour_before,
        **{
            role: audit.server.dsn(audit.hour_before, None if role == "owner" else f"test_{role}")
            for role in (field.name for field in fields(Database) if field.name != "name")
        },
    )
    cli = command_line_for(tmp_path, older.auditor)
    assert (await cli.run("audit", "verify", "--key", VKEY))[0] == 0
    code, stdout, _ = await cli.run("audit", "verify", "--key", VKEY, "--checkpoint", str(kept))
    assert code == 1
    assert f"outside: {kept}: it is of 910 entries, and the log has 610" in one_line(stdout)
    code, stdout, stderr = await cli.run("audit", "verify", "--operator", "op_b", "--checkpoint", str(kept))
    assert (code, stdout, stderr) == (
        2,
        "",
        f"{kept} is of the log {ORIGIN}/op_a, not of {ORIGIN}/op_b\n",
    )


async def test_a_login_that_may_not_record_the_result_says_so(audit: SealedAudit, tmp_path: Path) -> None:
    async with tampered(audit) as (database, _):
        code, stdout, _ = await command_line_for(tmp_path, database.support).run("audit", "verify", "--key", VKEY)
    assert code == 0
    assert "warning: the result was not recorded: permission denied" in one_line(stdout)
    assert "only a login with the role predictu_auditor records it" in one_line(stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--key", "a+b+c"), "--key: "),
        (("--key", "missing.txt"), "--key: missing.txt: No such file"),
        (("--checkpoint", "missing.txt"), "missing.txt: No such file or directory"),
        (("--against", "."), ". has no export: there is no ./OPERATOR/checkpoint"),
    ],
)
async def test_wrong_files_are_exit_code_2(
    tmp_path: Path, database: Database, arguments: tuple[str, ...], message: str
) -> None:
    code, stdout, stderr = await command_line_for(tmp_path, database.auditor).run("audit", "verify", *arguments)
    assert (code, stdout) == (2, "")
    assert stderr.startswith(message)


async def test_without_a_log_and_without_a_right_it_says_so(tmp_path: Path, database: Database) -> None:
    auditor = command_line_for(tmp_path, database.auditor)
    assert await auditor.run("audit", "verify") == (1, "", "nothing was sealed yet\n")
    for verb in (("status",), ("checkpoint", "op_a"), ("export", str(tmp_path / "export"))):
        code, stdout, stderr = await auditor.run("audit", *verb)
        assert (code, stdout) == (1, "")
        assert "no log yet" in stderr or "unknown operator op_a" in stderr
    code, _, stderr = await command_line_for(tmp_path, database.stranger).run("audit", "verify")
    assert code == 1
    assert "`predictu-dispatch audit verify` needs the role predictu_auditor" in stderr


async def test_it_works_through_a_pooling_proxy(audit: SealedAudit, tmp_path: Path) -> None:
    """No setting of the session is there: another time zone and float format change nothing."""
    pooler = PgBouncer(audit.server.dsn(audit.template, "test_auditor"), sessions=2)
    async with tampered(audit) as (database, owner):
        await owner.execute(
            f"alter database {database.name} set timezone = 'Asia/Kathmandu'; alter database {database.name} set"
            f" extra_float_digits = -10; alter database {database.name} set bytea_output = 'escape'"
        )
        pooler.start()
        try:
            cli = command_line_for(tmp_path, pooler.through(database.auditor))
            code, stdout, stderr = await cli.run("audit", "verify", "--key", VKEY, "--against", str(audit.export))
        finally:
            pooler.stop()
    assert (code, stderr) == (0, ""), stdout
    assert "clean: 1,498 rows compared in " in stdout
