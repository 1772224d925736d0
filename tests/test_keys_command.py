"""`check`, `keys new` and `keys public`, as a person or a program calls them."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from joserfc.jwk import OKPKey, RSAKey

from predictu_dispatch.commands.config import check, keys
from predictu_dispatch.edge.keys import create_key_file

GROUP = click.Group(commands=[check, keys])


@pytest.fixture
def dispatcher(tmp_path: Path) -> Path:
    (tmp_path / "operators").mkdir()
    (tmp_path / "dispatcher.toml").write_text("")
    return tmp_path / "dispatcher.toml"


def operator_file(dispatcher: Path, operator: str, more: str = "") -> Path:
    file = dispatcher.parent / "operators" / f"{operator}.toml"
    file.write_text(
        f'operator_id = "{operator}"\ncallback_url = "https://h/"\n[signing]\nkey_file = "own/{operator}.pem"\n{more}'
    )
    return file


def run(dispatcher: Path, *arguments: str) -> Result:
    return CliRunner().invoke(GROUP, [*arguments, "--config", str(dispatcher)])


def test_a_new_key_is_private_and_its_public_half_is_printed(dispatcher: Path) -> None:
    result = run(dispatcher, "keys", "new", "op_a", "--json")
    assert result.exit_code == 0
    made = json.loads(result.stdout)
    path = dispatcher.parent / "operators" / "keys" / "op_a.pem"
    assert made["private_key_file"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    private = OKPKey.import_key(path.read_bytes())
    assert private.is_private
    assert private.thumbprint() == made["key_id"] == made["public_jwk"]["kid"]
    assert OKPKey.import_key(made["public_pem"]).thumbprint() == made["key_id"]
    assert "PRIVATE" not in result.output


def test_a_key_is_readable_by_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key_file(tmp_path / "keys" / "op_a.pem", "EdDSA")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys" / "op_a.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


@pytest.mark.parametrize("there", ["a key", "a link to nowhere"])
def test_nothing_that_is_there_is_ever_overwritten(dispatcher: Path, there: str) -> None:
    path = dispatcher.parent / "operators" / "keys" / "op_a.pem"
    path.parent.mkdir()
    target = path.parent / "target"
    if there == "a key":
        path.write_text("the operator verifies with this one")
    else:
        path.symlink_to(target)
    result = run(dispatcher, "keys", "new", "op_a")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"{path} exists and stays as it is; to print it: predictu-dispatch keys public op_a\n"
    assert not target.exists()
    assert path.is_symlink() or path.read_text() == "the operator verifies with this one"


def test_a_disk_that_is_full_leaves_no_half_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        create_key_file(tmp_path / "op_a.pem", "EdDSA")
    assert not [*tmp_path.iterdir()]


def test_the_operators_file_says_where_and_with_what_algorithm(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a", 'algorithm = "RS256"')
    result = run(dispatcher, "keys", "new", "op_a")
    assert result.exit_code == 0
    private = RSAKey.import_key((dispatcher.parent / "operators" / "own" / "op_a.pem").read_bytes())
    assert private.is_private
    assert "Still missing" not in result.output
    assert run(dispatcher, "check").exit_code == 0


def test_another_algorithm_than_the_files_is_a_wrong_usage(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    result = run(dispatcher, "keys", "new", "op_a", "--algorithm", "RS256")
    assert result.exit_code == 2
    assert 'op_a.toml says algorithm = "EdDSA"; change it there, or leave --algorithm' in result.stderr
    assert not (dispatcher.parent / "operators" / "own").exists()


@pytest.mark.parametrize("operator", ["../op_a", "op/a", "", "op_a\n", "a" * 65])
@pytest.mark.parametrize("verb", ["new", "public"])
def test_an_operators_name_never_leads_to_another_folder(dispatcher: Path, verb: str, operator: str) -> None:
    assert run(dispatcher, "keys", verb, operator).exit_code == 2
    assert sorted(path.name for path in dispatcher.parent.rglob("*")) == ["dispatcher.toml", "operators"]


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
@pytest.mark.parametrize("with_file", [True, False])
def test_the_public_key_is_printed_in_both_forms(dispatcher: Path, algorithm: str, *, with_file: bool) -> None:
    if with_file:
        operator_file(dispatcher, "op_a", f'algorithm = "{algorithm}"')
    made = json.loads(run(dispatcher, "keys", "new", "op_a", "--algorithm", algorithm, "--json").stdout)
    assert run(dispatcher, "keys", "public", "op_a", "--format", "pem").stdout == made["public_pem"]
    assert json.loads(run(dispatcher, "keys", "public", "op_a", "--format", "jwk").stdout) == made["public_jwk"]
    both = run(dispatcher, "keys", "public", "op_a").stdout
    assert made["public_pem"] in both
    assert json.dumps(made["public_jwk"]) in both
    del made["private_key_file"]
    assert json.loads(run(dispatcher, "keys", "public", "op_a", "--json").stdout) == made


def test_a_missing_key_tells_the_command_that_makes_it(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    result = run(dispatcher, "keys", "public", "op_a")
    assert result.exit_code == 2
    assert result.stderr.endswith("to make one: predictu-dispatch keys new op_a\n")


def test_check_lists_the_operators_and_says_that_all_is_well(dispatcher: Path) -> None:
    assert run(dispatcher, "check").stdout == "0 operators, no fault\n"
    for operator in ("op_a", "op_bb"):
        operator_file(dispatcher, operator)
        run(dispatcher, "keys", "new", operator)
    listed = json.loads(run(dispatcher, "check", "--json").stdout)
    assert (listed["ok"], listed["faults"]) == (True, [])
    assert [row["operator_id"] for row in listed["operators"]] == ["op_a", "op_bb"]
    lines = run(dispatcher, "check").stdout.splitlines()
    assert lines[0] == f"op_a   enabled  EdDSA  {listed['operators'][0]['key_id']}  https://h/"
    assert lines[2] == "2 operators, no fault"


def test_check_ends_with_2_and_every_fault_on_a_line_of_its_own(dispatcher: Path) -> None:
    dispatcher.write_text("[daemon]\ndrain_s = -1\n")
    operator_file(dispatcher, "op_a", "token_ttl_s = 0\n")
    result = run(dispatcher, "check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(" = ")[0].rpartition(" ")[2] for line in result.stderr.splitlines()] == [
        "daemon.drain_s",
        "signing.token_ttl_s",
    ]
    told = run(dispatcher, "check", "--json")
    assert told.exit_code == 2
    faults = json.loads(told.stdout)["faults"]
    assert [(fault["key"], fault["value"]) for fault in faults] == [
        ("daemon.drain_s", "-1"),
        ("signing.token_ttl_s", "0"),
    ]


def test_the_commands_load_nothing_heavy_before_they_run() -> None:
    program = "import sys, predictu_dispatch.commands.config\nprint(*sorted(sys.modules), sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    heavy = {"pydantic", "cryptography", "nacl", "jwt", "asyncio", "aiohttp", "rich", "ssl"}
    assert not heavy & {*loaded.stdout.split()}
