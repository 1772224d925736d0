"""What `check` refuses of `[sandbox]` and `[certify]`, and what a daemon needs of them: nothing."""

import shutil
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.config.loader import load_config
from tests.support.key_commands import operator_file, run

SANDBOX = '[sandbox]\ncallback_url = "{url}"\nkey_file = "sandbox/{operator}.pem"\nplayers = ["p-1"]\n'


@pytest.fixture
def dispatcher(tmp_path: Path) -> Path:
    """Two operators with sandboxes, and a key that signs certificates; nothing is wrong."""
    (tmp_path / "operators").mkdir()
    (tmp_path / "dispatcher.toml").write_text('[certify]\nkey_file = "certify/certify.pem"\n')
    for operator in ("op_a", "op_b"):
        operator_file(
            tmp_path / "dispatcher.toml", operator, SANDBOX.format(url=f"https://{operator}.test/", operator=operator)
        )
        create_key_file(own_key(tmp_path, operator), "EdDSA")
        create_key_file(sandbox_key(tmp_path, operator), "EdDSA")
    create_key_file(tmp_path / "certify" / "certify.pem", "EdDSA")
    return tmp_path / "dispatcher.toml"


def own_key(folder: Path, operator: str, infix: str = "") -> Path:
    return folder / "operators" / "own" / f"{operator}{infix}.pem"


def sandbox_key(folder: Path, operator: str, infix: str = "") -> Path:
    return folder / "operators" / "sandbox" / f"{operator}{infix}.pem"


def refusals(dispatcher: Path) -> list[str]:
    """The lines of `check`, without the folder; the daemon's own checks find nothing."""
    load_config(dispatcher, {})
    result = run(dispatcher, "check")
    assert (result.exit_code, result.stdout) == (2, "")
    return result.stderr.replace(f"{dispatcher.parent}/", "").splitlines()


def test_a_safe_configuration_has_no_faults(dispatcher: Path) -> None:
    create_key_file(sandbox_key(dispatcher.parent, "op_a", ".next"), "EdDSA")
    assert run(dispatcher, "check").exit_code == 0


@pytest.mark.parametrize("infix", ["", ".next", ".previous"])
@pytest.mark.parametrize("sandbox_infix", ["", ".next"])
def test_a_live_key_of_any_operator_is_refused(dispatcher: Path, infix: str, sandbox_infix: str) -> None:
    live = own_key(dispatcher.parent, "op_b", infix)
    if infix:
        create_key_file(live, "EdDSA")
    shutil.copy(live, sandbox_key(dispatcher.parent, "op_a", sandbox_infix))
    [line] = refusals(dispatcher)
    assert line.startswith('operators/op_a.toml: sandbox.key_file = "sandbox/op_a.pem": key ')
    assert line.endswith(
        " is a live key of op_b; set another file, then predictu-dispatch keys new op_a --sandbox: a run moves money,"
        " so it must never reach a live wallet"
    )


def test_the_live_url_of_any_operator_is_refused(dispatcher: Path) -> None:
    file = operator_file(dispatcher, "op_a", SANDBOX.format(url="https://H//?test", operator="op_a"))
    file.write_text(file.read_text().replace('callback_url = "https://h/"', 'callback_url = "https://live/"', 1))
    assert refusals(dispatcher) == [
        (
            'operators/op_a.toml: sandbox.callback_url = "https://H//?test": is the live callback_url of op_b; give'
            " the URL of a test endpoint: a run moves money, so it must never reach a live wallet"
        )
    ]


def test_secrets_that_others_can_read_are_refused(dispatcher: Path) -> None:
    keys = [sandbox_key(dispatcher.parent, "op_a"), dispatcher.parent / "certify" / "certify.pem"]
    for key in keys:
        key.chmod(0o644)
    assert refusals(dispatcher) == [
        (
            'operators/op_a.toml: sandbox.key_file = "sandbox/op_a.pem": others can access'
            " operators/sandbox/op_a.pem (mode 0644); run: chmod 600 operators/sandbox/op_a.pem"
        ),
        (
            'dispatcher.toml: certify.key_file = "certify/certify.pem": others can access certify/certify.pem'
            " (mode 0644); run: chmod 600 certify/certify.pem"
        ),
    ]


def test_missing_keys_name_the_commands_that_make_them(dispatcher: Path) -> None:
    sandbox_key(dispatcher.parent, "op_b").unlink()
    (dispatcher.parent / "certify" / "certify.pem").unlink()
    assert refusals(dispatcher) == [
        (
            'operators/op_b.toml: sandbox.key_file = "sandbox/op_b.pem": no such file or directory; to create one:'
            " predictu-dispatch keys new op_b --sandbox"
        ),
        (
            'dispatcher.toml: certify.key_file = "certify/certify.pem": no such file or directory; to create one:'
            " predictu-dispatch keys new --certify"
        ),
    ]
    for line in (["op_b", "--sandbox"], ["--certify"]):
        assert run(dispatcher, "keys", "new", *line).exit_code == 0
    assert run(dispatcher, "check").exit_code == 0


@pytest.mark.parametrize("user", ["op_a", "the sandbox of op_a"])
def test_a_key_of_certificates_signs_nothing_else(dispatcher: Path, user: str) -> None:
    keys = {"op_a": own_key, "the sandbox of op_a": sandbox_key}
    shutil.copy(keys[user](dispatcher.parent, "op_a"), dispatcher.parent / "certify" / "certify.pem")
    [line] = refusals(dispatcher)
    assert line == (
        f'dispatcher.toml: certify.key_file = "certify/certify.pem": is also the key of {user}; certificates need a key'
        " of their own: set another file, then predictu-dispatch keys new --certify"
    )
