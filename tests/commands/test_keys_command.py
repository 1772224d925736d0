"""`check`, `keys new` and `keys public`: their output, exit codes and files."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from joserfc.jwk import OKPKey, RSAKey

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.key_commands import one_line, operator_file, run


def test_a_new_key_file_is_private_whatever_the_umask_and_the_public_key_is_printed(dispatcher: Path) -> None:
    before = os.umask(0)
    try:
        result = run(dispatcher, "keys", "new", "op_a", "--json")
    finally:
        os.umask(before)
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


@pytest.mark.parametrize("there", ["a key", "a link to nowhere"])
def test_an_existing_file_is_never_overwritten(dispatcher: Path, there: str) -> None:
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
    assert result.stderr == (
        f"{path} exists and is not changed; to print it: predictu-dispatch keys public op_a;"
        " to create the next key: predictu-dispatch keys stage op_a\n"
    )
    assert not target.exists()
    assert path.is_symlink() or path.read_text() == "the operator verifies with this one"


def test_a_full_disk_leaves_no_partial_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        create_key_file(tmp_path / "op_a.pem", "EdDSA")
    assert not [*tmp_path.iterdir()]


def test_no_key_is_created_beside_a_configuration_that_does_not_exist(tmp_path: Path) -> None:
    """As in the wrong folder: no daemon would find it."""
    result = run(tmp_path / "dispatcher.toml", "keys", "new", "op_a")
    assert result.exit_code == 2
    assert "dispatcher.toml does not exist; set --config or PREDICTU_DISPATCH_CONFIG to its path" in result.stderr
    assert [*tmp_path.iterdir()] == []


def test_the_operators_file_decides_path_and_algorithm(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a", 'algorithm = "RS256"')
    result = run(dispatcher, "keys", "new", "op_a")
    assert result.exit_code == 0
    private = RSAKey.import_key((dispatcher.parent / "operators" / "own" / "op_a.pem").read_bytes())
    assert private.is_private
    assert "Next: create" not in result.output
    assert run(dispatcher, "check").exit_code == 0


def test_another_algorithm_than_the_files_is_wrong_usage(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    result = run(dispatcher, "keys", "new", "op_a", "--algorithm", "RS256")
    assert result.exit_code == 2
    assert 'op_a.toml says algorithm = "EdDSA"; change it there, or omit --algorithm' in result.stderr
    assert not (dispatcher.parent / "operators" / "own").exists()


@pytest.mark.parametrize("operator", ["../op_a", "op/a", "", "op_a\n", "a" * 65])
@pytest.mark.parametrize("verb", ["new", "public", "stage", "activate", "revert", "retire"])
def test_an_operator_argument_cannot_contain_a_path(dispatcher: Path, verb: str, operator: str) -> None:
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
    assert json.loads(run(dispatcher, "keys", "public", "op_a", "--json").stdout) == {
        "operator_id": "op_a",
        "keys": [{"role": "active"} | {n: made[n] for n in ("algorithm", "key_id", "public_pem", "public_jwk")}],
    }


def test_a_missing_key_names_the_command_that_creates_it(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    result = run(dispatcher, "keys", "public", "op_a")
    assert result.exit_code == 2
    assert result.stderr.endswith("to create one: predictu-dispatch keys new op_a\n")


def test_a_name_that_a_staged_or_previous_key_has_is_nobodys_active_key(dispatcher: Path) -> None:
    """Otherwise one operator's `activate` would take away the key of another."""
    for name in ("op_b.next.pem", "op_b.previous.pem", "op_b.next"):
        file = operator_file(dispatcher, "op_a")
        file.write_text(file.read_text().replace("op_a.pem", name))
        create_key_file(file.parent / "own" / name, "EdDSA")
        result = run(dispatcher, "check")
        assert result.exit_code == 2
        assert "must not end in .next or .previous" in result.stderr


def test_the_key_of_certificates_is_made_once_and_its_vkey_printed(dispatcher: Path) -> None:
    made = run(dispatcher, "keys", "new", "--certify")
    file = dispatcher.parent / "certify" / "certify.pem"
    assert (made.exit_code, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)
    assert 'set [certify] key_file = "certify/certify.pem"' in one_line(made.stdout)
    assert run(dispatcher, "keys", "public", "--certify").exit_code == 2
    dispatcher.write_text('[certify]\nkey_file = "certify/certify.pem"\n')
    printed = run(dispatcher, "keys", "public", "--certify")
    vkey = VerifierKey.parse(printed.stdout.strip())
    assert (vkey.name, f"    {vkey}\n" in made.stdout) == ("certify.predictu", True)
    again = run(dispatcher, "keys", "new", "--certify")
    assert again.exit_code == 1
    assert again.stderr == (
        f"{file} exists and is not changed; to print its public half: predictu-dispatch keys public --certify\n"
    )


def test_a_sandbox_has_a_key_of_its_own_with_the_operators_algorithm(dispatcher: Path) -> None:
    assert run(dispatcher, "keys", "new", "op_a", "--sandbox").exit_code == 2
    file = operator_file(dispatcher, "op_a")
    file.write_text(file.read_text().replace("[signing]", '[signing]\nalgorithm = "RS256"'))
    made = run(dispatcher, "keys", "new", "op_a", "--sandbox")
    assert made.exit_code == 0
    assert 'set [sandbox] callback_url, key_file = "sandbox/op_a.pem", players' in one_line(made.stdout)
    private = RSAKey.import_key((dispatcher.parent / "operators" / "sandbox" / "op_a.pem").read_bytes())
    assert f'"kid": "{private.thumbprint()}"' in made.stdout


@pytest.mark.parametrize(
    "words",
    [
        "new",
        "new op_a --certify",
        "new --certify --audit",
        "new --certify --algorithm RS256",
        "new --sandbox",
        "new op_a --sandbox --algorithm RS256",
        "public",
        "public op_a --certify",
        "public --certify --format pem",
    ],
)
def test_options_of_keys_that_contradict_each_other_create_nothing(dispatcher: Path, words: str) -> None:
    operator_file(dispatcher, "op_a")
    result = run(dispatcher, "keys", *words.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert not list(dispatcher.parent.rglob("*.pem"))


def test_check_lists_the_operators(dispatcher: Path) -> None:
    assert run(dispatcher, "check").stdout == "0 operators, no faults\n"
    for operator in ("op_a", "op_bb"):
        operator_file(dispatcher, operator)
        run(dispatcher, "keys", "new", operator)
    listed = json.loads(run(dispatcher, "check", "--json").stdout)
    assert (listed["ok"], listed["faults"]) == (True, [])
    assert [row["operator_id"] for row in listed["operators"]] == ["op_a", "op_bb"]
    lines = run(dispatcher, "check").stdout.splitlines()
    assert lines[0] == f"op_a   enabled  EdDSA  {listed['operators'][0]['key_id']}  https://h/"
    assert lines[2] == "2 operators, no faults"
    with dispatcher.open("a") as file:
        file.write('[audit]\nkey_file = "audit.pem"\n')
    assert "key_file is set and origin is not, so the audit is not sealed" in run(dispatcher, "check").stderr
    with dispatcher.open("a") as file:
        file.write('origin = "audit.example.com"\n')
    run(dispatcher, "keys", "new", "--audit")
    assert "audit: sealed as audit.example.com/OPERATOR; witnesses: none\n" in run(dispatcher, "check").stdout


def test_check_exits_2_with_every_fault_on_its_own_line(dispatcher: Path) -> None:
    dispatcher.write_text("[daemon]\ndrain_s = -1\n")
    operator_file(dispatcher, "op_a", "token_ttl_s = 0\n")
    result = run(dispatcher, "check")
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.split(" = ")[0].rpartition(" ")[2] for line in result.stderr.splitlines()] == [
        "daemon.drain_s",
        "signing.token_ttl_s",
    ]
    result = run(dispatcher, "check", "--json")
    assert result.exit_code == 2
    faults = json.loads(result.stdout)["faults"]
    assert [(fault["key"], fault["value"]) for fault in faults] == [
        ("daemon.drain_s", "-1"),
        ("signing.token_ttl_s", "0"),
    ]


def test_the_help_of_each_verb_fits_its_line(dispatcher: Path) -> None:
    result = run(dispatcher, "keys", "--help")
    assert "..." not in result.stdout.partition("Commands:")[2]


def test_the_modules_of_commands_import_nothing_heavy() -> None:
    modules = "predictu_dispatch.commands.output, predictu_dispatch.commands.keys.command"
    program = f"import sys, {modules}\nprint(*sorted(sys.modules), sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    heavy = {"pydantic", "cryptography", "nacl", "jwt", "asyncio", "aiohttp", "rich", "ssl"}
    assert not heavy & {*loaded.stdout.split()}
