"""The end of each verb's --help: its exit codes and examples."""

from __future__ import annotations

from typing import Final, NamedTuple

import click

_PROGRAM: Final = "predictu-dispatch"
_ID: Final = "0190a6d1-7c3e-7c11-9a5b-1f0f6a2b9c55"


class _Ending(NamedTuple):
    failed: str
    """What exit code 1 means."""
    examples: tuple[str, ...]
    uses_database: bool = True


_CERTIFY_URL: Final = (
    "certify --url https://sandbox.example.com/predictu \\\n"
    "    --key test.pem --player p-1 --player p-2 --operator-id op_abc123"
)
_REFUSED: Final = "the database refused"
_CHANGED: Final = "one of them was refused, and the others are changed"
_ENDINGS: Final = {
    "demo": _Ending("the money does not agree", ("demo", "demo --bets 1000 --seed 7"), uses_database=False),
    "run": _Ending("it ended by a fault", ("run", "run --config /etc/predictu-dispatch/dispatcher.toml")),
    "migrate": _Ending(f"{_REFUSED}, or a running daemon is too old", ("migrate",)),
    "check": _Ending("never", ("check", "check --json"), uses_database=False),
    "status": _Ending(_REFUSED, ("status", "status --json")),
    "top": _Ending(_REFUSED, ("top", "top --every 5")),
    "show": _Ending("it is unknown or ambiguous", ("show 0190a6d1-7c3e", "show --bet op_abc123 b-1")),
    "why": _Ending("it is unknown or ambiguous", ("why 0190a6d1-7c3e",)),
    "find": _Ending(
        "nothing was found", ("find --operator op_abc123 --player p-1", "find --operator op_abc123 --bet b-1 --json")
    ),
    "retry": _Ending(_CHANGED, (f"retry {_ID}", "retry --operator op_abc123 --method BET_WIN")),
    "cancel": _Ending(_CHANGED, (f'cancel {_ID} \\\n    --reason "placed twice"',)),
    "abandon": _Ending(_CHANGED, (f'abandon {_ID} \\\n    --reason "settled by hand"',)),
    "resolve": _Ending(_CHANGED, (f'resolve {_ID} \\\n    --reason "paid by hand"',)),
    "interventions": _Ending(
        _REFUSED, ("interventions --operator op_abc123 --since 2026-11-28", "interventions --bet b-1")
    ),
    "pause": _Ending(_REFUSED, ('pause op_abc123 --reason "their upgrade"',)),
    "resume": _Ending(f"{_REFUSED}, or it is not paused", ("resume op_abc123",)),
    "operator retire": _Ending(
        "something of it is unfinished or needs review", ('operator retire op_abc123 --reason "contract ended"',)
    ),
    "ping": _Ending("a PING failed or could not be sent", ("ping op_abc123", "ping --all")),
    "keys new": _Ending(
        "a key exists", ("keys new op_abc123", "keys new op_abc123 --sandbox", "keys new --audit"), uses_database=False
    ),
    "keys public": _Ending(
        "a key is damaged", ("keys public op_abc123 --format pem", "keys public --certify"), uses_database=False
    ),
    "keys stage": _Ending("a key is staged", ("keys stage op_abc123",), uses_database=False),
    "keys activate": _Ending("no key is staged", ("keys activate op_abc123",), uses_database=False),
    "keys revert": _Ending("there is no previous key", ("keys revert op_abc123",), uses_database=False),
    "keys retire": _Ending(
        "the key may be needed, or there is none", ("keys retire op_abc123", "keys retire op_abc123 --compromised")
    ),
    "audit status": _Ending("there is no log", ("audit status", "audit status op_abc123 --json")),
    "audit verify": _Ending(
        "something does not fit, or there is no log",
        ("audit verify", "audit verify --operator op_abc123 --checkpoint kept.txt"),
    ),
    "audit prove": _Ending(
        "it is unknown, ambiguous or not sealed", ("audit prove 0190a6d1-7c3e --attempt 2 -o proof.tlog-proof",)
    ),
    "audit checkpoint": _Ending("there is no log", ("audit checkpoint op_abc123",)),
    "audit key": _Ending("no operator has a file", ("audit key", "audit key op_abc123"), uses_database=False),
    "audit policy": _Ending(_REFUSED, ("audit policy op_abc123",)),
    "audit export": _Ending(
        "a log does not continue what DIR has, or rows do not fit their log",
        ("audit export /srv/audit", "audit verify --against /srv/audit"),
    ),
    "dispute": _Ending(
        "the bet is unknown, or a record of it was changed",
        ("dispute --bet op_abc123 b-1", "dispute --bet op_abc123 b-1 --without-player -o b-1.zip"),
    ),
    "certify": _Ending(
        "a scenario failed or must be reviewed, or a balance is not as before",
        (
            "certify op_abc123",
            "certify op_abc123 --only repetition --expect known.toml",
            _CERTIFY_URL,
            "certify --check certificate.note --vkey VKEY",
        ),
        uses_database=False,
    ),
    "statement": _Ending(
        "there can be no statement of the period, or an amount cannot be read",
        (
            "statement op_abc123 --currency EUR \\\n    --from 2026-11-01 --until 2026-11-30",
            "statement op_abc123 --currency EUR \\\n    --from 2026-11-21 --until 2026-11-21 --csv",
        ),
    ),
    "reconcile": _Ending(
        "a difference is open, or the run is not complete",
        (
            "reconcile op_abc123 --day 2026-11-21 ledger-20261121.csv",
            "reconcile op_abc123 --from 2026-11-01 --until 2026-11-07 \\\n    *.csv.gz",
            "reconcile op_abc123 --last 2",
        ),
    ),
    "reconcile list": _Ending(
        "the operator is unknown",
        ("reconcile list", "reconcile list op_abc123 --class missing_there", "reconcile list --runs"),
    ),
    "reconcile show": _Ending("it is unknown or ambiguous", ("reconcile show 0190a6d1-7c3e",)),
    "reconcile explain": _Ending(
        "one of them was refused, and the others are explained",
        (f'reconcile explain {_ID} \\\n    --reason "their import failed, ticket 4711"',),
    ),
    "reconcile accept": _Ending(
        "one of them was refused, and the others are accepted",
        (f'reconcile accept {_ID} \\\n    --reason "paid by bank transfer"',),
    ),
    "retain": _Ending(f"{_REFUSED}, or another run is active", ("retain --dry-run", "retain")),
    "currencies list": _Ending(_REFUSED, ("currencies", "currencies list --json")),
    "currencies add": _Ending("the code has other digits", ("currencies add USDT 6",)),
    "completion": _Ending("never", ("completion bash",), uses_database=False),
}
"""By verb. `reference-operator` prints its own help."""


def add_epilogs(verb: str, command: click.Command) -> None:
    """Give the verb, and each verb of a group, its end of --help."""
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            add_epilogs(f"{verb} {name}", one)
    if verb in _ENDINGS and command.epilog is None:
        command.epilog = _epilog(_ENDINGS[verb])


def _epilog(ending: _Ending) -> str:
    codes = ["0 success"]
    if ending.failed != "never":
        codes.append(f"1 {ending.failed}")
    codes.append("2 bad configuration or usage")
    if ending.uses_database:
        codes.append("3 the database can't be reached")
    # \b is click's mark for lines that are not rewrapped.
    examples = "\n".join(["\b", "Examples:", *(f"  {_PROGRAM} {example}" for example in ending.examples)])
    return f"Exit codes: {'; '.join(codes)}.\n\n{examples}"
