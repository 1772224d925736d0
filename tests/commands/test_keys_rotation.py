"""`keys stage`, `activate`, `revert` and `retire`: their output, exit codes and files."""

import fcntl
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.edge.config.keys import create_key_file, new_private_pem
from tests.support.key_commands import one_line, operator_file, roles, run


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


def test_a_revert_makes_the_previous_key_active_and_stages_the_other(dispatcher: Path) -> None:
    operator_file(dispatcher, "op_a")
    for verb in ("new", "stage", "activate"):
        run(dispatcher, "keys", verb, "op_a")
    before = roles(dispatcher)
    reverted = run(dispatcher, "keys", "revert", "op_a")
    assert reverted.exit_code == 0
    assert roles(dispatcher) == {"active": before["previous"], "staged": before["active"]}
    assert one_line(reverted.stdout).startswith(
        f"Active: key {before['previous']}. Key {before['active']} is staged again. Both are published."
    )
    for phrase in ("SIGHUP", "predictu-dispatch ping op_a", "predictu-dispatch keys activate op_a"):
        assert phrase in one_line(reverted.stdout)
    # It is what it was before, so that the rotation can go on.
    assert run(dispatcher, "keys", "activate", "op_a").exit_code == 0
    assert roles(dispatcher) == before


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


EVERY = ("stage", "activate", "revert", "retire")


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
        (
            ("activate",),
            [put("op_a.previous.pem"), copy_active_to("op_a.next.pem")],
            ["a revert to key", "keys revert op_a"],
        ),
        (("retire",), [], ["nothing to retire", "keys stage op_a", "is compromised"]),
        (("revert",), [], ["nothing to revert", "op_a.previous.pem has no other key", "is active"]),
        (("revert",), [put("op_a.next.pem")], ["nothing to revert", "is staged"]),
        (("revert",), [copy_active_to("op_a.previous.pem")], ["nothing to revert"]),
        (
            ("revert",),
            [put("op_a.next.pem"), put("op_a.previous.pem")],
            ["is staged", "remove the file, then: predictu-dispatch keys revert op_a"],
        ),
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
        assert "no operator op_a: " in result.stderr
        assert "op_a.toml does not exist" in result.stderr
    operator_file(dispatcher, "op_b")
    assert run(dispatcher, "keys", "stage", "op_a").stderr.endswith("; did you mean op_b?\n")


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
