"""Who plays: the three operators, their players, and the words of the demo's configuration files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from predictu_dispatch.core.operator_settings import SigningAlgorithm

GOOD: Final = "op_good"
FLAKY: Final = "op_flaky"
DOWN: Final = "op_down"

CURRENCY: Final = "EUR"
RICH_BALANCE: Final = 1_000_000
"""Subunits. Stakes are 50.00 at most, so no rich player can run dry, whatever the number of bets."""
POOR_BALANCE: Final = 50
"""Subunits, below every stake: the one player who is told INSUFFICIENT_FUNDS."""
STAKE_MIN: Final = 100
STAKE_MAX: Final = 5_000

RICH: Final = tuple(f"player-{number}" for number in range(1, 11))
POOR: Final = "player-poor"
STRANGER: Final = "player-unknown"
"""Has no wallet anywhere: PLAYER_NOT_FOUND."""

Weather = dict[str, float]
"""Shares of callbacks that an operator spoils, by the reference operator's names; `stall_s` may stand beside them."""

CALM: Final[Weather] = {}
MIXED: Final[Weather] = {
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
"""What op_flaky does to ordinary bets: every third callback goes wrong, half of those after the money has moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One operator as it is integrated."""

    operator_id: str
    algorithm: SigningAlgorithm = "EdDSA"
    amount_format: str = "subunits"
    players: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RICH, RICH_BALANCE) | {POOR: POOR_BALANCE})


ROLES: Final = (
    Role(operator_id=GOOD),
    Role(operator_id=FLAKY, algorithm="RS256", amount_format="decimal"),
    Role(operator_id=DOWN),
)

ATTEMPT_TIMEOUT_S: Final = 1.0
DEADLINE_S: Final = 4.0
"""Of the interactive lane; shorter than a lease, so that a placement lost with its daemon is rolled back."""


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
"""


def operator_toml(role: Role, *, callback_url: str, key_file: Path) -> str:
    """An operator's file. Everything is shorter than in life, so that a day of trouble fits into half a minute."""
    return f"""\
operator_id = "{role.operator_id}"
callback_url = "{callback_url}"
amount_format = "{role.amount_format}"
allow_insecure_http = true       # The demo's operators are on this machine.
allow_private_addresses = true
[signing]
algorithm = "{role.algorithm}"
key_file = "{key_file}"
[interactive]
deadline_s = {DEADLINE_S}
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
failure_threshold = {1000 if role.operator_id == FLAKY else 60}
open_s = 1.0
[health]
ping_interval_s = 2.0
[statuses]
rejected = ["BET_ROLLED_BACK", "BET_ALREADY_PLACED", "BET_ALREADY_SETTLED", "BET_MISMATCH", "WALLET_LIMIT"]
"""
