"""The fixtures: three operators, their players, and the configuration files of the demo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from predictu_dispatch.core.operator_settings import SigningAlgorithm

GOOD: Final = "op_good"
FLAKY: Final = "op_flaky"
DOWN: Final = "op_down"

STAKE_MIN: Final = 100
STAKE_MAX: Final = 5_000
RICH: Final = tuple(f"player-{number}" for number in range(1, 11))
POOR: Final = "player-poor"
"""Holds less than any stake, so the answer is INSUFFICIENT_FUNDS."""
UNKNOWN: Final = "player-unknown"
"""Has no wallet, so the answer is PLAYER_NOT_FOUND."""
PLAYERS: Final = dict.fromkeys(RICH, 1_000_000) | {POOR: 50}
"""The first balances at every operator, in subunits."""
FaultRates = Mapping[str, float]
"""Shares of callbacks that fail, by kind of fault; `stall_s` is a duration."""
NO_FAULTS: Final[FaultRates] = {}
MIXED_FAULTS: Final[FaultRates] = {
    "reset": 0.05,
    "reset_after_apply": 0.06,
    "error_before_apply": 0.04,
    "error_after_apply": 0.06,
    "stall_after_apply": 0.04,
    "unavailable": 0.03,
    "not_json": 0.03,
    "duplicate": 0.05,
    "stall_s": 1.5,
}
"""The flaky operator: every third callback fails, half of these after the money moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorFixture:
    """How one operator is integrated."""

    operator_id: str
    about: str
    algorithm: SigningAlgorithm = "EdDSA"
    amount_format: str = "subunits"


OPERATORS: Final = (
    OperatorFixture(operator_id=GOOD, about="answers every request within milliseconds"),
    OperatorFixture(
        operator_id=FLAKY,
        about="fails one request in three, half of these after the money moved",
        algorithm="RS256",
        amount_format="decimal",
    ),
    OperatorFixture(operator_id=DOWN, about="goes down for about 6 s in the middle; otherwise like op_good"),
)

ATTEMPT_TIMEOUT_S: Final = 1.0
AUDIT_KEY_FILE: Final = "audit.pem"


def dispatcher_toml(*, dsn: str, http_port: int) -> str:
    """The daemon's file."""
    return f"""\
[database]
dsn = "{dsn}"
[daemon]
instance = "demo"
drain_s = 5.0
poll_interval_s = 0.2
[http]
listen = "127.0.0.1:{http_port}"
[log]
format = "json"
[audit]
origin = "audit.demo.example"
key_file = "{AUDIT_KEY_FILE}"
seal_s = 0.5
"""


def operator_toml(fixture: OperatorFixture, *, callback_url: str, key_file: Path) -> str:
    """An operator's file, with short timeouts so that the demo ends within a minute.

    The interactive deadline is shorter than a lease, so a placement lost with its daemon is rolled
    back.
    """
    return f"""\
operator_id = "{fixture.operator_id}"
callback_url = "{callback_url}"
amount_format = "{fixture.amount_format}"
allow_insecure_http = true       # The demo's operators are on this machine.
allow_private_addresses = true
[signing]
algorithm = "{fixture.algorithm}"
key_file = "{key_file}"
[interactive]
deadline_s = 4.0
attempt_timeout_s = {ATTEMPT_TIMEOUT_S}
connect_timeout_s = 0.5
max_attempts = 3
initial_delay_s = 0.5
max_delay_s = 1.0
[settlement]
attempt_timeout_s = {ATTEMPT_TIMEOUT_S}
connect_timeout_s = 0.5
initial_delay_s = 0.3
max_delay_s = 1.5
[rollback]
recheck_s = 1.5
[circuit]
failure_threshold = {1000 if fixture.operator_id == FLAKY else 60}
open_s = 1.0
[health]
ping_interval_s = 2.0
[statuses]
rejected = ["BET_ROLLED_BACK", "BET_ALREADY_PLACED", "BET_ALREADY_SETTLED", "BET_MISMATCH", "WALLET_LIMIT"]
retry = ["BAD_REQUEST"]
[reconcile]
url = "{callback_url}/ledger"
"""
