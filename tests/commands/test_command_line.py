"""The command itself: suggestions, completion, --help and --version."""

import importlib.metadata
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from predictu_dispatch.certification.scenario import Group
from predictu_dispatch.certification.scenarios import ALL
from predictu_dispatch.cli import main

PROGRAM = "predictu-dispatch"
SCRIPT = Path(sys.executable).with_name(PROGRAM)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name=PROGRAM)


def verbs() -> dict[str, click.Command]:
    """Every verb, and every verb of a group."""
    context = click.Context(main, info_name=PROGRAM)
    found: dict[str, click.Command] = {}
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        found |= {f"{name} {one}": verb for one, verb in getattr(command, "commands", {}).items()} or {name: command}
        if getattr(command, "without_verb", None):
            found[name] = command
    return found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("stauts", "No such command 'stauts'. Did you mean 'status'?"),
        ("STATUS", "Did you mean 'status'"),
        ("keys rotat op_a", "No such command 'rotat'. Did you mean 'stage'?"),
        ("keys retrie op_a", "Did you mean 'retire'"),
        ("keys undo op_a", "Did you mean 'revert'?"),
        ("activate op_a", "Did you mean 'keys activate'?"),
        ("retire op_a", "Did you mean 'keys retire' or 'operator retire'"),
        ("help", f"For help: {PROGRAM} --help"),
        ("xyzzy", f"For all: {PROGRAM} --help"),
        ("status --jsno", "Did you mean '--json'?"),
        ("keys retire op_a --comprimised", "Did you mean '--compromised'?"),
        ("--json status", f"--json comes after the verb: {PROGRAM} status … --json"),
        ("ping", "name one OPERATOR, or give --all"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_names_the_nearest_verb_or_option(line: str, message: str) -> None:
    result = run(*line.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_group_without_a_verb_prints_its_help() -> None:
    for group in ((), ("keys",)):
        result = run(*group)
        assert result.exit_code == 2
        assert "\nCommands:\n" in result.stderr
        assert "\\n" not in result.stderr


def test_the_verbs_of_groups_are_suggested() -> None:
    listed = {f"{group} {verb}" for group, names in main.elsewhere.items() for verb in names}
    # `status` and `show` alone are verbs of their own.
    assert listed == {verb for verb in verbs() if " " in verb} - {"audit status", "reconcile show"}


@pytest.mark.parametrize("verb", [verb for verb in verbs() if verb != "reference-operator"])
def test_each_help_names_exit_codes_and_an_example_and_fits_80_columns(verb: str) -> None:
    result = CliRunner().invoke(main, [*verb.split(), "--help"], prog_name=PROGRAM, terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "Exit codes: 0 success" in result.stdout
    assert f"Examples:\n    {PROGRAM} {verb.removesuffix(' list')}" in result.stdout


def test_each_example_is_valid_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its parsing; the verbs have tests of their own."""
    monkeypatch.setattr(click.Command, "invoke", lambda *_: None)
    for verb, command in verbs().items():
        for line in (command.epilog or "").replace("\\\n", "").splitlines():
            if line.startswith(f"  {PROGRAM} "):
                result = run(*shlex.split(line)[1:])
                assert result.exit_code == 0, (verb, line, result.output)


def test_the_version_is_that_of_the_package() -> None:
    assert run("--version").stdout == f"{PROGRAM}, version {importlib.metadata.version(PROGRAM)}\n"


@pytest.fixture
def operators(tmp_path: Path) -> Path:
    (tmp_path / "operators").mkdir()
    for name in ("op_a", "op_b", "other"):
        (tmp_path / "operators" / f"{name}.toml").write_text("not read")
    (tmp_path / "operators" / "op_example.toml.example").write_text("")
    # Completion must not wait for the database that it names.
    (tmp_path / "dispatcher.toml").write_text('[database]\ndsn = "postgresql://192.0.2.1/none"\n')
    return tmp_path / "dispatcher.toml"


def completed(config: Path, line: str) -> list[str]:
    """What bash offers at the end of this line."""
    environment = {
        **os.environ,
        "PREDICTU_DISPATCH_CONFIG": str(config),
        "_PREDICTU_DISPATCH_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    ended = subprocess.run([SCRIPT], env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert ended.stderr == ""
    return [offer.partition(",")[2] for offer in ended.stdout.splitlines() if offer]


def test_completion_knows_verbs_options_methods_operators_scenarios_and_runs(
    operators: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(operators.parent)
    for run in ("20261129-101502-3f2a", "20261130-101502-3f2a"):
        journal = operators.parent / "certify-reports" / run / "journal.ndjson"
        journal.parent.mkdir(parents=True)
        journal.touch()
    money = [one.id for one in ALL if one.group is Group.MONEY]
    for line, offers in {
        "st": ["status", "statement"],
        "keys re": ["revert", "retire"],
        "ping ": ["op_a", "op_b", "other"],
        "ping op": ["op_a", "op_b"],
        "keys retire o": ["op_a", "op_b", "other"],
        "keys retire op_a --comp": ["--compromised"],
        "retry --operator op": ["op_a", "op_b"],
        "retry --operator op_a --method BET_W": ["BET_WIN"],
        "show --bet op": ["op_a", "op_b"],
        "show --bet op_a ": [],
        "reconcile op": ["op_a", "op_b"],
        "reconcile op_a --unr": ["--unreadable"],
        "completion ": ["bash", "zsh", "fish"],
        "certify op_a --only mon": ["money", *money],
        "certify op_a --clean 2026": ["20261130-101502-3f2a", "20261129-101502-3f2a"],
    }.items():
        assert completed(operators, f"{PROGRAM} {line}") == offers, line
    assert completed(operators.parent / "missing" / "dispatcher.toml", f"{PROGRAM} ping ") == []
    with_config = f"{PROGRAM} ping --config {operators} oth"
    assert completed(operators.parent / "missing" / "dispatcher.toml", with_config) == ["other"]


def test_the_script_completes_in_bash(operators: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    script = (
        f'source <("{SCRIPT}" completion bash) && COMP_WORDS=({PROGRAM} ping o) COMP_CWORD=2'
        f' && _predictu_dispatch_completion "{SCRIPT}" && echo "${{COMPREPLY[@]}}"'
    )
    environment = {**os.environ, "PREDICTU_DISPATCH_CONFIG": str(operators)}
    ended = subprocess.run(
        [bash, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout.split() == ["op_a", "op_b", "other"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str) -> None:
    assert f"_PREDICTU_DISPATCH_COMPLETE={shell}_complete" in run("completion", shell).stdout


@pytest.mark.parametrize(
    "line",
    [
        "--help",
        *(f"{verb} --help" for verb in ("status", "show", "find", "why", "ping", "keys", "certify", "reconcile")),
    ],
)
@pytest.mark.parametrize("variable", ["", "bash_complete"])
def test_neither_help_nor_completion_imports_what_is_slow(variable: str, line: str) -> None:
    """Both take 0.1 to 0.2 s on an idle machine; each import below would double that."""
    program = (
        "import atexit, sys; atexit.register(lambda: print(*sorted(sys.modules)));"
        f"sys.argv = ['{PROGRAM}', *{line.split()}]; from predictu_dispatch.cli import main; main()"
    )
    words = f"{PROGRAM} {line.replace('--help', '')}"
    environment = {**os.environ, "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    if variable:
        environment["_PREDICTU_DISPATCH_COMPLETE"] = variable
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    slow = {"asyncpg", "pydantic", "cryptography", "nacl", "jwt", "aiohttp", "rich", "uvloop", "tenacity"}
    assert ended.stdout
    assert not slow & {*ended.stdout.split()}
