"""`check` and the verbs of `keys`: their output, exit codes and files."""

import fcntl
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from joserfc.jwk import OKPKey, RSAKey

from predictu_dispatch.commands.daemon import check
from predictu_dispatch.commands.keys import keys
from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.edge.config.keys import create_key_file, new_private_pem

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
@pytest.mark.parametrize("verb", ["new", "public", "stage", "activate", "retire"])
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


def one_line(text: str) -> str:
    return " ".join(text.split())


def roles(dispatcher: Path) -> dict[str, str]:
    """Role: key_id, as `keys public` lists them."""
    listed = json.loads(run(dispatcher, "keys", "public", "op_a", "--json").stdout)["keys"]
    return {key["role"]: key["key_id"] for key in listed}


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
def test_a_rotation_is_stage_activate_retire_and_each_step_prints_the_next(dispatcher: Path, algorithm: str) -> None:
    operator_file(dispatcher, "op_a", f'algorithm = "{algorithm}"\ntoken_ttl_s = 77')
    folder = dispatcher.parent / "operators" / "own"
    a = json.loads(run(dispatcher, "keys", "new", "op_a", "--json").stdout)["key_id"]

    staged = run(dispatcher, "keys", "stage", "op_a")
    b = roles(dispatcher)["staged"]
    assert roles(dispatcher) == {"active": a, "staged": b}
    pems = run(dispatcher, "keys", "public", "op_a", "--format", "pem").stdout
    [_, _, pem] = pems.split("-----BEGIN PUBLIC KEY-----")
    assert pem in staged.stdout
    listed = run(dispatcher, "keys", "public", "op_a").stdout
    assert f"active  {algorithm}  {a}\n" in listed
    assert f"staged  {algorithm}  {b}\n" in listed
    assert one_line(staged.stdout).startswith(
        f"Staged: key {b}. Nothing signs with it yet. Next: 1. Reload every daemon: "
    )
    for phrase in (
        "systemctl reload",
        "SIGHUP",
        "restart",
        "/keys/op_a.json",
        "60 s",
        "predictu-dispatch keys activate op_a",
    ):
        assert phrase in one_line(staged.stdout)

    activated = run(dispatcher, "keys", "activate", "op_a")
    assert roles(dispatcher) == {"active": b, "previous": a}
    assert one_line(activated.stdout).startswith(f"Active: key {b}. The previous key {a} is kept and still published.")
    for phrase in ("SIGHUP", "at least 77 s", "predictu-dispatch keys retire op_a"):
        assert phrase in one_line(activated.stdout)

    retired = run(dispatcher, "keys", "retire", "op_a")
    assert roles(dispatcher) == {"active": b}
    assert one_line(retired.stdout).startswith(f"Retired: key {a}. Its file is removed.")
    assert "SIGHUP" in one_line(retired.stdout)
    assert [path.name for path in folder.iterdir()] == ["op_a.pem"]
    assert stat.S_IMODE((folder / "op_a.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in staged.output + activated.output + retired.output


def test_a_key_can_be_staged_before_the_previous_one_is_retired(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    for verb in ("new", "stage", "activate", "stage"):
        assert run(dispatcher, "keys", verb, "op_a").exit_code == 0
    before = roles(dispatcher)
    assert [*before] == ["active", "staged", "previous"]
    assert run(dispatcher, "keys", "retire", "op_a").exit_code == 0
    assert roles(dispatcher) == {role: before[role] for role in ("active", "staged")}


def test_json_has_the_changed_key_all_keys_and_the_next_steps(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    run(dispatcher, "keys", "new", "op_a")
    meant = {}
    for verb, there in (("stage", "active staged"), ("activate", "active previous"), ("retire", "active")):
        output = json.loads(run(dispatcher, "keys", verb, "op_a", "--json").stdout)
        assert (output["ok"], output["operator_id"]) == (True, "op_a")
        assert [key["role"] for key in output["keys"]] == there.split()
        assert output["keys"] == json.loads(run(dispatcher, "keys", "public", "op_a", "--json").stdout)["keys"]
        assert all(isinstance(step, str) for step in output["next"])
        meant[verb] = output["key_id"]
    assert meant["stage"] == meant["activate"] == roles(dispatcher)["active"] != meant["retire"]
    refused = run(dispatcher, "keys", "retire", "op_a", "--json")
    assert json.loads(refused.stdout) == {"ok": False, "error": refused.stderr.strip()}


def test_a_staged_key_has_the_owner_and_group_of_the_active_one(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    run(dispatcher, "keys", "new", "op_a")
    active = dispatcher.parent / "operators" / "own" / "op_a.pem"
    group = next((group for group in [*os.getgroups(), 4711 if os.geteuid() == 0 else 0] if group), os.getegid())
    os.chown(active, -1, group)
    # Readable by everyone is a mistake that is not copied.
    active.chmod(0o644)
    assert run(dispatcher, "keys", "stage", "op_a").exit_code == 0
    staged = active.with_name("op_a.next.pem").stat()
    assert (stat.S_IMODE(staged.st_mode), staged.st_uid, staged.st_gid) == (0o640, active.stat().st_uid, group)


def put(name: str, algorithm: SigningAlgorithm | None = "EdDSA") -> Callable[[Path], object]:
    """Beside the active key, that of `name` is there: a fresh one, or half a one."""
    if algorithm is None:
        return lambda folder: (folder / name).write_text("-----BEGIN PRIVATE KEY-----\nMC4")
    return lambda folder: (folder / name).write_bytes(new_private_pem(algorithm))


def copy_active_to(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / "op_a.pem").read_bytes())


def link_active(folder: Path) -> None:
    (folder / "op_a.pem").rename(folder / "elsewhere.pem")
    (folder / "op_a.pem").symlink_to("elsewhere.pem")
    put("op_a.next.pem")(folder)


EVERY = ("stage", "activate", "retire")


@pytest.mark.parametrize(
    ("verbs", "arrange", "phrases"),
    [
        (("stage",), [put("op_a.next.pem")], ["is staged already", "keys activate op_a"]),
        (("activate",), [], ["nothing is staged", "is active;", "keys stage op_a"]),
        (("activate",), [put("op_a.previous.pem")], ["nothing is staged", "is the previous one", "keys stage op_a"]),
        (
            ("activate",),
            [put("op_a.next.pem"), put("op_a.previous.pem")],
            ["the previous key", "still exists", "keys retire op_a"],
        ),
        (("activate",), [copy_active_to("op_a.next.pem")], ["both staged and active", "remove it"]),
        (("retire",), [], ["nothing to retire", "keys activate op_a"]),
        (("retire",), [put("op_a.next.pem")], ["nothing to retire", "keys activate op_a"]),
        (
            ("retire",),
            [put("op_a.next.pem"), copy_active_to("op_a.previous.pem")],
            ["is still active", "an activate was interrupted", "keys activate op_a"],
        ),
        (EVERY, [put("op_a.next.pem", None)], ["the staged key", "op_a.next.pem", "damaged", "fix it first"]),
        (EVERY, [put("op_a.previous.pem", None)], ["the previous key", "op_a.previous.pem", "damaged"]),
        (EVERY, [put("op_a.pem", None)], ["the active key", "op_a.pem", "damaged", "fix it first"]),
        (EVERY, [put("op_a.next.pem", "RS256")], ["needs an Ed25519 key", "a rotation keeps the algorithm"]),
        (EVERY, [put("op_a.pem", "RS256")], ["needs an Ed25519 key", "a rotation keeps the algorithm"]),
        (EVERY, [lambda folder: (folder / "op_a.pem").unlink()], ["there is no active key", "keys new op_a"]),
        (EVERY, [link_active], ["op_a.pem is a symbolic link", "replace it by the key file itself"]),
    ],
)
def test_an_impossible_step_is_refused_and_changes_nothing(
    dispatcher: Path, verbs: tuple[str, ...], arrange: list[Callable[[Path], object]], phrases: list[str]
) -> None:
    operator_file(dispatcher, "op_a")
    run(dispatcher, "keys", "new", "op_a")
    folder = dispatcher.parent / "operators" / "own"
    for change in arrange:
        change(folder)
    before = {path.name: (path.is_symlink(), path.read_bytes()) for path in folder.iterdir()}
    for verb in verbs:
        result = run(dispatcher, "keys", verb, "op_a")
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert [part for part in phrases if part not in result.stderr] == [], result.stderr
        assert {path.name: (path.is_symlink(), path.read_bytes()) for path in folder.iterdir()} == before


def test_a_rotation_needs_the_operators_file(dispatcher: Path) -> None:
    run(dispatcher, "keys", "new", "op_a")
    for verb in EVERY:
        result = run(dispatcher, "keys", verb, "op_a")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "op_a.toml: no such file or directory" in result.stderr


def test_concurrent_rotations_are_refused(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    run(dispatcher, "keys", "new", "op_a")
    folder = os.open(dispatcher.parent / "operators" / "own", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for verb in EVERY:
            assert "another rotation is running" in run(dispatcher, "keys", verb, "op_a").stderr
    finally:
        os.close(folder)
    assert run(dispatcher, "keys", "stage", "op_a").exit_code == 0


def test_a_name_that_a_staged_or_previous_key_has_is_nobodys_active_key(dispatcher: Path) -> None:
    """Otherwise one operator's `activate` would take away the key of another."""
    for name in ("op_b.next.pem", "op_b.previous.pem", "op_b.next"):
        file = operator_file(dispatcher, "op_a")
        file.write_text(file.read_text().replace("op_a.pem", name))
        create_key_file(file.parent / "own" / name, "EdDSA")
        result = run(dispatcher, "check")
        assert result.exit_code == 2
        assert "must not end in .next or .previous" in result.stderr


@pytest.mark.parametrize("is_known", [True, False])
def test_of_systemds_credentials_the_verbs_say_that_the_unit_provides_them(
    dispatcher: Path, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    """The daemon's environment names the credentials' folder, a person's shell does not."""
    file = operator_file(dispatcher, "op_a")
    file.write_text(file.read_text().replace("own/op_a.pem", "op_a.pem"))
    credentials = dispatcher.parent / "credentials"
    for name in ("op_a.pem", "op_a.next.pem", "op_a.previous.pem"):
        create_key_file(credentials / name, "EdDSA")
    credentials.chmod(0o500)
    if is_known:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
        assert [*roles(dispatcher)] == ["active", "staged", "previous"]
    for verb in EVERY:
        result = run(dispatcher, "keys", verb, "op_a")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "only the unit can change it (LoadCredential=NAME:FILE, then restart the daemon)" in result.stderr
        assert "provide the next key as op_a.next.pem" in result.stderr
        assert ("predictu-dispatch keys new op_a" in result.stderr) == (not is_known)
    assert len([*credentials.iterdir()]) == 3


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
    modules = "predictu_dispatch.commands.output, predictu_dispatch.commands.keys"
    program = f"import sys, {modules}\nprint(*sorted(sys.modules), sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=30)
    heavy = {"pydantic", "cryptography", "nacl", "jwt", "asyncio", "aiohttp", "rich", "ssl"}
    assert not heavy & {*loaded.stdout.split()}
