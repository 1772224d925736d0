"""`certify`: the real command against a reference operator; exit codes, reports, and the money."""

import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from predictu_dispatch.certification import scenarios
from predictu_dispatch.certification.target import REQUESTS_MAX, REQUESTS_PER_S
from predictu_dispatch.cli import main
from predictu_dispatch.commands.certify import options
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.reference_operator.trial import OPERATOR_ID
from tests.support.default_signals import SIGNALS, default_signals
from tests.support.trial_operator import PLAYERS, TrialOperator, trial_operator

FAST = ("--only", "connection-ping", "--only", "money-debit", "--only", "money-win")
PING = ("--only", "connection-ping")
SLOW = ("--only", "repetition-after-70-s")
FAILING = "signature-next-key"
"""It fails with the words of `with_unknown_next_key`."""


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialOperator]:
    with trial_operator(tmp_path_factory.mktemp("operator")) as running:
        yield running


@pytest.fixture(autouse=True)
def money(operator: TrialOperator) -> Iterator[None]:
    """At the end of each test a player has what he had before, by the operator's own books."""
    before = operator.balances()
    yield
    assert operator.balances() == before


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, without a configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREDICTU_DISPATCH_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def certify(*words: str) -> Result:
    return CliRunner().invoke(main, ["certify", *words], prog_name="predictu-dispatch")


def run_folder(folder: Path) -> Path:
    """The folder of the only run."""
    [run] = (entry for entry in (folder / "certify-reports").iterdir() if entry.is_dir())
    return run


def configuration(
    folder: Path, operator: TrialOperator, *, live_url: str = "https://wallet.example.com/p", sandbox: str = ""
) -> Path:
    """A configuration of the operator, with a sandbox and a key that signs certificates."""
    operators = folder / "config" / "operators"
    operators.mkdir(parents=True)
    create_key_file(operators / "keys" / f"{OPERATOR_ID}.pem", "EdDSA")
    create_key_file(folder / "config" / "certify.pem", "EdDSA")
    statuses = [operator.words[i + 1] for i, word in enumerate(operator.words) if word == "--rejected"]
    (folder / "config" / "dispatcher.toml").write_text('[certify]\nkey_file = "certify.pem"\n')
    (operators / f"{OPERATOR_ID}.toml").write_text(
        f'operator_id = "{OPERATOR_ID}"\ncallback_url = "{live_url}"\n'
        "allow_insecure_http = true\nallow_private_addresses = true\n"
        f'[signing]\nkey_file = "keys/{OPERATOR_ID}.pem"\n[statuses]\nrejected = {json.dumps(statuses)}\n'
        f'[sandbox]\ncallback_url = "{sandbox or operator.url}"\nkey_file = "{operator.key_file}"\n'
        f"players = {json.dumps(PLAYERS)}\n"
    )
    return folder / "config" / "dispatcher.toml"


def with_unknown_next_key(operator: TrialOperator, folder: Path) -> list[str]:
    """The command line with a staged key that the operator does not know."""
    for name in ("sandbox.pem", "sandbox.next.pem"):
        (folder / name).unlink(missing_ok=True)
    (folder / "sandbox.pem").write_bytes(operator.key_file.read_bytes())
    create_key_file(folder / "sandbox.next.pem", "EdDSA")
    return ["sandbox.pem" if word == str(operator.key_file) else word for word in operator.words]


def test_the_defaults_are_those_of_a_target() -> None:
    assert (options.REQUESTS_MAX, options.RATE_MAX) == (REQUESTS_MAX, REQUESTS_PER_S)
    assert options.DEFAULT_OPERATOR_ID == OPERATOR_ID


def test_a_run_with_a_url_passes_and_its_report_is_not_signed(operator: TrialOperator, folder: Path) -> None:
    result = certify(*operator.words, *FAST)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.stdout
    verdicts = [line.split()[:2] for line in lines if re.match(r"[A-Z]+ +[a-z]+-.* [0-9.]+ s$", line)]
    assert verdicts == [["PASSED", "connection-ping"], ["PASSED", "money-debit"], ["PASSED", "money-win"]]
    assert "Player player-1: 1000.00 EUR before, 1000.00 EUR after, net effect 0.00 EUR" in lines
    assert "PASSED" in lines
    assert "Note: No configuration was read, so URL and key were compared with no live\noperator.\n" in result.stdout
    assert {file.name for file in run_folder(folder).iterdir()} == {
        "index.html",
        "journal.ndjson",
        "junit.xml",
        "report.json",
    }


def test_a_configured_operator_that_passes_all_gets_a_certificate_that_can_be_checked(
    operator: TrialOperator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scenarios are a few of them: what counts is that all were played."""
    few = tuple(one for one in scenarios.ALL if one.id in FAST)
    monkeypatch.setattr(scenarios, "ALL", few)
    configuration(folder, operator)
    result = certify(OPERATOR_ID)
    assert result.exit_code == 0, result.output
    note = run_folder(folder) / "certificate.note"
    assert "certificate.note" in result.stdout
    assert "No certificate" not in result.stdout

    checked = certify("--check", str(note))
    assert checked.exit_code == 0, checked.output
    assert f"{note} is valid" in checked.stdout.replace("\n", " ")
    vkey = CliRunner().invoke(main, ["keys", "public", "--certify"]).stdout.strip()
    (folder / "config" / "dispatcher.toml").unlink()
    assert certify("--check", str(note), "--vkey", vkey).exit_code == 0
    facts = json.loads(certify("--check", str(note), "--vkey", vkey, "--json").stdout)
    assert (facts["valid"], facts["operator_id"], facts["url"]) == (True, OPERATOR_ID, operator.url)

    report = note.with_name("report.json")
    report.write_bytes(report.read_bytes() + b" ")
    changed = certify("--check", str(note), "--vkey", vkey)
    assert changed.exit_code == 1
    assert "report.json beside it: it is not the report that was certified" in " ".join(changed.stdout.split())
    note.write_text(note.read_text().replace(OPERATOR_ID, "op_other"))
    forged = certify("--check", str(note), "--vkey", vkey)
    assert forged.exit_code == 1
    assert "the signature of certify.predictu does not verify" in forged.stderr


def test_the_whole_suite_has_no_certificate_if_some_were_chosen(operator: TrialOperator, folder: Path) -> None:
    configuration(folder, operator)
    result = certify(OPERATOR_ID, *FAST)
    assert result.exit_code == 0, result.output
    assert "No certificate: --only chose scenarios; a certificate needs all of them." in result.stdout


def test_json_is_the_summary_alone_and_the_progress_is_on_stderr(operator: TrialOperator) -> None:
    result = certify(*operator.words, *FAST, "--json")
    summary: dict[str, Any] = json.loads(result.stdout)
    assert (result.exit_code, summary["passed"], summary["counts"]["PASSED"]) == (0, True, 3)
    assert [player["net"] for player in summary["reversal"]["players"]] == [0, 0]
    assert [Path(file).name for file in summary["reports"]] == ["report.json", "index.html", "junit.xml"]
    assert result.stderr.count("PASSED") == 3


def test_a_failure_says_what_it_costs_and_the_line_that_repeats_it(operator: TrialOperator, folder: Path) -> None:
    words = with_unknown_next_key(operator, folder)
    result = certify(*words, *FAST, "--only", FAILING)
    assert result.exit_code == 1, result.output
    text = " ".join(result.stdout.split())
    assert f"FAILED {FAILING}:" in text
    for field in ("observed:", "expected:", "cost:", "do:"):
        assert f"\n  {field}" in result.stdout
    assert "NOT PASSED" in result.stdout
    [line] = re.findall(r"^  again: +(.*)$", result.stdout, re.MULTILINE)
    again = certify(*shlex.split(line)[2:])
    assert again.exit_code == 1
    assert f"FAILED   {FAILING}" in again.stdout
    assert "1 scenario failed: signature-next-key." in again.stdout


def test_the_ledger_is_compared_again_with_all_that_was_played(operator: TrialOperator) -> None:
    words = [f"{operator.url}/no-ledger" if word.endswith("/ledger") else word for word in operator.words]
    result = certify(*words, *FAST, "--only", "ledger")
    assert result.exit_code == 1, result.output
    [line] = re.findall(r"^  again: +(.*)$", result.stdout, re.MULTILINE)
    assert line.endswith(" ".join((*FAST, "--only", "ledger")))


@pytest.mark.parametrize(
    ("scenario", "until", "expectation"),
    [
        (FAILING, "2999-01-31", (0, "known:    their ticket 7 (until 2999-01-31)")),
        (FAILING, "2020-01-31", (1, "signature-next-key was expected to fail until 2020-01-31 only")),
        ("money-debit", "2999-01-31", (1, "money-debit no longer fails: remove it from the expected failures")),
        ("load-sixteen", "2020-01-31", (1, "1 scenario failed: signature-next-key.")),
    ],
)
def test_a_known_failure_is_accepted_as_long_as_it_fails_and_in_time(
    operator: TrialOperator, folder: Path, scenario: str, until: str, expectation: tuple[int, str]
) -> None:
    (folder / "known.toml").write_text(
        f'[[expected]]\nscenario = "{scenario}"\nreason = "their ticket 7"\nuntil = {until}\n'
    )
    code, says = expectation
    words = with_unknown_next_key(operator, folder)
    result = certify(*words, *FAST, "--only", FAILING, "--expect", "known.toml")
    assert result.exit_code == code, result.output
    assert says in result.stdout.replace("\n  ", " ").replace("\n", " ") + result.stdout
    assert (f"1 known failure: {FAILING}." in result.stdout) is (code == 0)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A port of this host that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        opened.settimeout(0)
        yield opened


def has_connection(listening: socket.socket) -> bool:
    """Whether a connection was made to the port so far."""
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@pytest.mark.parametrize("spelling", ["http://127.0.0.1:{port}/live", "http://LOCALHOST:{port}//live/?env=test"])
@pytest.mark.parametrize("mode", ["OPERATOR", "--url", "--clean"])
def test_the_live_url_is_refused_and_nothing_is_sent(
    operator: TrialOperator, folder: Path, listening: socket.socket, spelling: str, mode: str
) -> None:
    port = listening.getsockname()[1]
    sandbox = spelling.format(port=port)
    configuration(folder, operator, live_url=f"http://127.0.0.1:{port}/live", sandbox=sandbox)
    words = [OPERATOR_ID]
    if mode == "--url":
        words = [sandbox if word == operator.url else word for word in operator.words]
    result = certify(*words, *(("--clean", "20261130-101502-3f2a") if mode == "--clean" else PING))
    assert (result.exit_code, result.stdout) == (2, "")
    assert not has_connection(listening)
    assert f"is the live callback_url of {OPERATOR_ID}; give the URL of a test endpoint" in result.stderr
    assert not (folder / "certify-reports").exists()


@pytest.mark.parametrize("mode", ["OPERATOR", "--url"])
@pytest.mark.parametrize("infix", ["", ".next", ".previous"])
def test_a_live_key_is_refused_and_nothing_is_sent(
    operator: TrialOperator, folder: Path, listening: socket.socket, mode: str, infix: str
) -> None:
    sandbox = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    configuration(folder, operator, sandbox=sandbox)
    live = folder / "config" / "operators" / "keys" / f"{OPERATOR_ID}{infix}.pem"
    live.write_bytes(operator.key_file.read_bytes())
    live.chmod(0o600)
    words = [OPERATOR_ID]
    if mode == "--url":
        words = [sandbox if word == operator.url else word for word in operator.words]
    result = certify(*words, *PING)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not has_connection(listening)
    assert f" is a live key of {OPERATOR_ID}; " in result.stderr


@pytest.mark.parametrize("mode", ["OPERATOR", "--url"])
def test_a_ledger_at_the_live_url_is_refused_and_nothing_is_sent(
    operator: TrialOperator, folder: Path, listening: socket.socket, mode: str
) -> None:
    live = f"http://127.0.0.1:{listening.getsockname()[1]}/live"
    configuration(folder, operator, live_url=live, sandbox=operator.url)
    words = [OPERATOR_ID, "--ledger", f"{live}/"]
    if mode == "--url":
        words = [f"{live}/" if word == f"{operator.url}/ledger" else word for word in operator.words]
    result = certify(*words, *PING)
    assert (result.exit_code, result.stdout) == (2, "")
    assert not has_connection(listening)
    assert f"is the live callback_url of {OPERATOR_ID}; give" in " ".join(result.stderr.split())


def test_with_url_a_configuration_that_cannot_be_read_is_no_reason_to_send(
    operator: TrialOperator, folder: Path
) -> None:
    configuration(folder, operator).write_text("nonsense")
    result = certify(*operator.words, *FAST)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "config/dispatcher.toml: not valid TOML" in result.stderr


def test_an_interruption_at_the_reports_says_that_they_are_not_complete(
    operator: TrialOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("predictu_dispatch.certification.report.write_reports", write)
    result = certify(*operator.words, *PING)
    assert result.exit_code == 130
    assert "interrupted: the reports in certify-reports/" in result.stderr
    assert "are not complete" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name one OPERATOR, or give --url, --list or --check"),
        (["op_a", "--url", "https://h/"], "name one OPERATOR, or give --url, --list or --check"),
        (["--url", "https://h/"], "--url needs --key FILE and --player PLAYER"),
        (["--url", "https://h/", "--key", "k", "--player", "a", "--player", "a"], "or two different ones"),
        (["op_a", "--player", "p"], "--player goes with --url; with OPERATOR, the operator's file has it"),
        (["op_a", "--vkey", "x"], "--vkey goes with --check"),
        (["op_a", "--clean", "x", "--only", "money"], "--clean plays nothing; omit --only and --expect"),
        (["op_a", "--only", "mony"], "--only mony: no scenario or group has this name. Did you mean 'money'?"),
        (["op_a"], "config/dispatcher.toml: no such file or directory"),
        (["--check", "missing.note", "--vkey", "x"], "missing.note: no such file or directory"),
        (["--check", "note"], "give the signer's --vkey, which verifies the certificate"),
        (["--check", "note", "--vkey", "certify.predictu"], "--vkey certify.predictu: the key is of no known type"),
    ],
)
def test_wrong_usage_is_exit_code_2(words: list[str], says: str, folder: Path) -> None:
    (folder / "note").write_text("nonsense")
    result = certify(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("replaced", "by", "says"),
    [
        ("--allow-insecure-http", "", 'certify: --url = "{url}": must be an https:// URL, or --allow-insecure-http'),
        ("--allow-private-addresses", "", "must be a URL of a public host, or --allow-private-addresses (127.0.0.1 is"),
        ("op_throwaway", "a b", 'certify: --operator-id = "a b": must be 1 to 64 of A-Z'),
        ("BET_MISMATCH", "OK", 'certify: --rejected = ["BET_ALREADY_PLACED"'),
        ("{key}", "missing.pem", "missing.pem: --key: no such file or directory; to create one: openssl genpkey"),
        ("{url}/ledger", "ftp://h/", '--ledger = "ftp://h/": must be an https:// URL'),
        ("player-1", "nobody", "player nobody"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_option(operator: TrialOperator, replaced: str, by: str, says: str) -> None:
    names = {"url": operator.url, "key": operator.key_file}
    words = [by if word == replaced.format(**names) else word for word in operator.words]
    result = certify(*[word for word in words if word], *FAST)
    assert result.exit_code == 2, result.output
    assert says.format(**names) in result.stderr


def test_an_operator_without_a_sandbox_is_told_what_to_set(operator: TrialOperator, folder: Path) -> None:
    configuration(folder, operator)
    file = folder / "config" / "operators" / f"{OPERATOR_ID}.toml"
    file.write_text(file.read_text().partition("[sandbox]")[0])
    result = certify(OPERATOR_ID)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has no [sandbox]: set its callback_url, key_file and players" in result.stderr
    assert "did you mean op_throwaway?" in certify("op_throwawy").stderr


def test_the_scenarios_are_listed_without_a_configuration() -> None:
    listed = certify("--list").stdout.split()
    assert {one.id for one in scenarios.ALL} <= {*listed}
    as_json = json.loads(certify("--list", "--json").stdout)
    assert [one["id"] for one in as_json] == [one.id for one in scenarios.ALL]


class Command:
    """The command as a process."""

    def __init__(self, *words: str) -> None:
        with default_signals():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "predictu_dispatch", "certify", *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def read_until(self, beginning: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(beginning):
                return
        raise AssertionError(self.ended())

    def ended(self) -> tuple[int, str, str]:
        stdout, stderr = self.process.communicate(timeout=100)
        return self.process.returncode, stdout, stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_the_run_and_undoes_it(operator: TrialOperator, folder: Path, number: signal.Signals) -> None:
    """The scenario pauses for 70 s with its debit booked."""
    before = operator.balances()
    command = Command(*operator.words, "--only", "connection-ping", *SLOW)
    wait_for_debit(operator, command, before)
    command.process.send_signal(number)
    code, stdout, stderr = command.ended()
    assert code == 128 + number
    assert "interrupted: what was booked is undone now; a second signal ends at once" in stderr
    assert "SKIPPED  repetition-after-70-s" in stdout
    assert "The run was stopped: it was interrupted." in stdout
    assert json.loads((run_folder(folder) / "report.json").read_text())


def test_a_second_signal_ends_at_once_and_names_the_line_that_undoes_the_run(operator: TrialOperator) -> None:
    before = operator.balances()
    command = Command(*operator.words, "--only", "connection-ping", *SLOW)
    wait_for_debit(operator, command, before)
    operator.stop_answering()
    command.process.send_signal(signal.SIGINT)
    assert command.process.stderr is not None
    assert command.process.stderr.readline().startswith("interrupted")
    command.process.send_signal(signal.SIGINT)
    code, _, stderr = command.ended()
    operator.answer_again()
    assert code == 130
    [line] = re.findall(r"To undo it: (.*)$", stderr, re.MULTILINE)
    for _ in range(2):  # The second time there is nothing to undo.
        cleaned = certify(*shlex.split(line)[2:])
        assert cleaned.exit_code == 0, cleaned.output
        assert "net effect 0.00 EUR" in cleaned.stdout
    assert certify(*operator.words, "--clean", "20200101-000000-0000").exit_code == 2


def test_a_reader_who_leaves_does_not_keep_the_run_from_being_undone(operator: TrialOperator, folder: Path) -> None:
    command = Command(*operator.words, "--only", "money")
    command.read_until("Run ")
    assert command.process.stdout is not None
    command.process.stdout.close()
    assert command.process.stderr is not None
    stderr = command.process.stderr.read()
    command.process.stderr.close()
    assert command.process.wait(timeout=100) == 1, stderr
    assert "Traceback" not in stderr
    assert json.loads((run_folder(folder) / "report.json").read_text())


def wait_for_debit(operator: TrialOperator, command: Command, before: dict[str, int]) -> None:
    """Return when a player's money has changed."""
    while operator.balances() == before:
        if command.process.poll() is not None:
            raise AssertionError(command.ended())


def test_a_run_that_was_killed_ahead_of_its_first_balance_has_nothing_to_undo(
    operator: TrialOperator, folder: Path
) -> None:
    assert certify(*operator.words, *PING).exit_code == 0
    journal = run_folder(folder) / "journal.ndjson"
    journal.write_bytes(journal.read_bytes().partition(b"\n")[0] + b"\n")
    cleaned = certify(*operator.words, "--clean", journal.parent.name)
    assert (cleaned.exit_code, cleaned.stderr) == (0, "")
