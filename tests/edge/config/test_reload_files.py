"""A reload takes good files, keeps running settings for bad ones, and detects every change."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.keys import create_key_file, new_private_pem
from predictu_dispatch.edge.config.loader import Reload, reload_config
from tests.edge.config.configuration import CLIENT_TLS, issue_certificates, load


def write_operator(folder: Path, operator_id: str, *, more: str = "", tls: str = "") -> None:
    (folder / "operators" / f"{operator_id}.toml").write_text(
        f'operator_id = "{operator_id}"\ncallback_url = "https://h/"\n{more}\n'
        f'[signing]\nkey_file = "keys/{operator_id}.pem"\n{tls}'
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two valid operators: op_a with a key, op_b also with a CA and a client certificate."""
    (tmp_path / "operators").mkdir()
    (tmp_path / "dispatcher.toml").write_text("")
    for operator_id, tls in (("op_a", ""), ("op_b", CLIENT_TLS)):
        write_operator(tmp_path, operator_id, tls=tls)
        create_key_file(tmp_path / "operators" / "keys" / f"{operator_id}.pem", "EdDSA")
    issue_certificates(tmp_path)
    return tmp_path


@dataclass(frozen=True, kw_only=True)
class Case:
    """A change of the files, and the result of the reload."""

    what: str
    change: Callable[[Path], object]
    operators: tuple[str, ...] = ("op_a", "op_b")
    taken: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """The beginning of each fault's line, without the folder."""
    needs_restart: tuple[str, ...] = ()
    environ: dict[str, str] = field(default_factory=dict)


def key(name: str) -> Callable[[Path], Path]:
    return lambda folder: folder / "operators" / "keys" / f"{name}.pem"


def text(name: str, content: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / name).write_text(content)
        (folder / name).chmod(0o600)

    return write


def gone(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def add_operator(folder: Path) -> None:
    write_operator(folder, "op_c")
    create_key_file(key("op_c")(folder), "EdDSA")


def replace_operators_folder(folder: Path) -> None:
    shutil.rmtree(folder / "operators")
    (folder / "operators").write_text("")


def replace_key(folder: Path) -> None:
    key("op_a")(folder).unlink()
    create_key_file(key("op_a")(folder), "EdDSA")


def break_half_of_everything(folder: Path) -> None:
    (folder / "dispatcher.toml").write_text("nonsense")
    write_operator(folder, "op_a", more="enabled = 1")
    write_operator(folder, "op_b", more="enabled = false")
    add_operator(folder)
    (folder / "operators" / "op_d.toml").write_text("nonsense")


BOTH = ("op_a", "op_b")
KEY_FAULT = 'operators/op_a.toml: signing.key_file = "keys/op_a.pem": '
CASES = [
    Case(what="nothing", change=lambda _: None),
    # An operator's file.
    Case(what="a comment", change=lambda folder: write_operator(folder, "op_a", more="# A comment.\nenabled = true")),
    Case(what="an edit", change=lambda f: write_operator(f, "op_a", more="enabled = false"), taken=("op_a",)),
    Case(
        what="a bad edit",
        change=lambda folder: write_operator(folder, "op_a", more="enabled = 1"),
        kept=("op_a",),
        faults=("operators/op_a.toml: enabled = 1: must be true or false",),
    ),
    Case(
        what="an operator's file that is no TOML",
        change=text("operators/op_a.toml", "nonsense"),
        kept=("op_a",),
        faults=("operators/op_a.toml: not valid TOML",),
    ),
    Case(what="a new operator", change=add_operator, operators=(*BOTH, "op_c"), taken=("op_c",)),
    Case(
        what="a new operator's bad file",
        change=text("operators/op_c.toml", "nonsense"),
        faults=("operators/op_c.toml: not valid TOML",),
    ),
    Case(what="an operator's file gone", change=gone("operators/op_a.toml"), operators=("op_b",)),
    Case(
        what="the operators folder gone",
        change=lambda folder: shutil.rmtree(folder / "operators"),
        kept=BOTH,
        faults=("operators: no such file or directory",),
    ),
    Case(what="no folder any more", change=replace_operators_folder, kept=BOTH, faults=("operators: not a directory",)),
    # The dispatcher's file.
    Case(
        what="an edit of the dispatcher's file",
        change=text("dispatcher.toml", "[http]\nlisten = '[::1]:1'\n[database]\npool_size = 5\n[log]\nlevel = 'info'"),
        needs_restart=("database.pool_size", "http.listen"),
    ),
    Case(
        what="another DSN in the environment",
        change=lambda _: None,
        environ={"PREDICTU_DISPATCH_DSN": "postgresql://u:hunter2@h/db?sslmode=require"},
        needs_restart=("database.dsn",),
    ),
    Case(
        what="a bad dispatcher's file",
        change=text("dispatcher.toml", "[database]\npool_size = 0"),
        faults=("dispatcher.toml: database.pool_size = 0",),
    ),
    Case(
        what="the dispatcher's file gone",
        change=gone("dispatcher.toml"),
        faults=("dispatcher.toml: no such file or directory",),
    ),
    # What only `reconcile` uses.
    Case(
        what="another spelling of the ledger",
        change=lambda folder: write_operator(folder, "op_a", tls="[reconcile]\ntime_zone = 'Europe/Malta'"),
    ),
    Case(
        what="a time zone that this host does not know",
        change=lambda folder: write_operator(folder, "op_a", tls="[reconcile]\ntime_zone = 'Europe/New_Town'"),
    ),
    Case(
        what="a bad spelling of the ledger",
        change=lambda folder: write_operator(folder, "op_a", tls="[reconcile]\nday_starts = '6:00'"),
        kept=("op_a",),
        faults=('operators/op_a.toml: reconcile.day_starts = "6:00": must be',),
    ),
    # What only `certify` uses.
    Case(
        what="a sandbox",
        change=lambda folder: write_operator(
            folder,
            "op_a",
            tls="[sandbox]\ncallback_url = 'https://s.example/'\nkey_file = 'keys/missing.pem'\nplayers = ['p-1']",
        ),
    ),
    Case(
        what="a bad sandbox",
        change=lambda folder: write_operator(folder, "op_a", tls="[sandbox]\nkey_file = 'x'"),
        kept=("op_a",),
        faults=('operators/op_a.toml: sandbox.key_file = "x": must be',),
    ),
    Case(what="the key of certificates", change=text("dispatcher.toml", "[certify]\nkey_file = 'missing.pem'")),
    # A key.
    Case(what="another key under the same name", change=replace_key, taken=("op_a",)),
    Case(
        what="half a key",
        change=text("operators/keys/op_a.pem", "-----BEGIN PRIVATE KEY-----\nMC4"),
        kept=("op_a",),
        faults=(f"{KEY_FAULT}a damaged PKCS#8 PEM",),
    ),
    Case(
        what="a key gone",
        change=gone("operators/keys/op_a.pem"),
        kept=("op_a",),
        faults=(f"{KEY_FAULT}no such file or directory; to create one: predictu-dispatch keys new op_a",),
    ),
    Case(
        what="a staged key", change=lambda folder: create_key_file(key("op_a.next")(folder), "EdDSA"), taken=("op_a",)
    ),
    Case(
        what="half a staged key",
        change=text("operators/keys/op_a.next.pem", "-----BEGIN PRIVATE KEY-----\nMC4"),
        kept=("op_a",),
        faults=(f"{KEY_FAULT}the staged key beside it, op_a.next.pem: a damaged PKCS#8 PEM",),
    ),
    Case(
        what="a previous key of another algorithm",
        change=lambda folder: create_key_file(key("op_a.previous")(folder), "RS256"),
        kept=("op_a",),
        faults=(
            f'{KEY_FAULT}the previous key beside it, op_a.previous.pem: signing.algorithm = "EdDSA" needs an Ed25519',
        ),
    ),
    # A certificate.
    Case(what="renewed certificates under the same names", change=issue_certificates, taken=("op_b",)),
    Case(
        what="a certificate without its key",
        change=lambda folder: (folder / "operators" / "client.key").write_bytes(new_private_pem("EdDSA")),
        kept=("op_b",),
        faults=("operators/op_b.toml: tls.client_cert_file",),
    ),
    Case(
        what="a CA gone",
        change=gone("operators/ca.pem"),
        kept=("op_b",),
        faults=('operators/op_b.toml: tls.ca_file = "ca.pem": no such file or directory',),
    ),
    Case(
        what="half of everything bad",
        change=break_half_of_everything,
        operators=(*BOTH, "op_c"),
        taken=("op_b", "op_c"),
        kept=("op_a",),
        faults=(
            "dispatcher.toml: not valid TOML",
            "operators/op_a.toml: enabled",
            "operators/op_d.toml: not valid TOML",
        ),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_good_files_are_taken_and_bad_ones_change_nothing(folder: Path, case: Case) -> None:
    running = load(folder)
    case.change(folder)
    reload = reload_config(running, case.environ)
    assert tuple(reload.config.operators) == case.operators
    # An unchanged operator is the same object; a changed one is not equal.
    same = {name for name, operator in reload.config.operators.items() if operator is running.operators.get(name)}
    assert tuple(sorted(reload.config.operators.keys() - same)) == case.taken
    assert all(reload.config.operators[name] != running.operators.get(name) for name in case.taken)
    assert reload.kept == case.kept
    lines = [str(fault).replace(f"{folder}/", "") for fault in reload.faults]
    assert len(lines) == len(case.faults), lines
    assert all(line.startswith(fault) for line, fault in zip(lines, case.faults, strict=True)), lines
    assert reload.needs_restart == case.needs_restart
    assert (reload.config.dispatcher, reload.config.path) == (running.dispatcher, running.path)
    assert "hunter2" not in repr(reload)


def again(reload: Reload) -> Reload:
    return reload_config(reload.config, {})


def test_a_renewed_certificate_is_used_after_a_reload(folder: Path) -> None:
    running = load(folder)
    issue_certificates(folder)
    before, after = running.operators["op_b"], reload_config(running, {}).config.operators["op_b"]
    assert before.ssl_context is not None
    assert after.ssl_context is not None
    assert before.ssl_context.get_ca_certs(binary_form=True) != after.ssl_context.get_ca_certs(binary_form=True)


def test_a_fixed_file_is_taken_by_the_next_reload(folder: Path) -> None:
    running = load(folder)
    write_operator(folder, "op_a", more="enabled = 1")
    first = reload_config(running, {})
    write_operator(folder, "op_a", more="enabled = false")
    second = again(first)
    assert (second.kept, second.faults) == ((), ())
    assert not second.config.operators["op_a"].settings.enabled
    assert again(second).config.operators["op_a"] is second.config.operators["op_a"]


def test_keys_that_need_a_restart_are_reported_at_each_reload(folder: Path) -> None:
    running = load(folder)
    (folder / "dispatcher.toml").write_text("[daemon]\ndrain_s = 1\n")
    first = reload_config(running, {})
    assert first.needs_restart == again(first).needs_restart == ("daemon.drain_s",)
    (folder / "dispatcher.toml").write_text("")
    assert again(first).needs_restart == ()
