"""What the daemons of a fleet know of each other and of the operators.

Who may use how much of an operator's limits is decided in the database, under one lock (announce() in 0007_fleet.sql):
the sum of all shares never exceeds a limit, whatever comes late or never.

What there is one of for each operator every second is a named tuple, which is made three times as fast as a frozen
dataclass: of five hundred operators that is felt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from uuid import UUID

    from predictu_dispatch.core.breaker import Breaker

HEARTBEAT_INTERVAL_S = 1.0
HEARTBEAT_TIMEOUT_S = 3.0
"""As heartbeat_timeout() in 0007_fleet.sql; a test compares the two."""
SHARE_VALID_S = 2.5
"""How long a share may be used after it was asked for: others take it once we were silent for HEARTBEAT_TIMEOUT_S."""


class Share(NamedTuple):
    """This daemon's slots by lane and its requests a second; None where the rate is not limited."""

    operator_id: str
    interactive_slots: int
    settlement_slots: int
    requests_per_s: float | None
    is_fair: bool = True


class Usage(NamedTuple):
    """What this daemon wants of an operator's limits and goes on using until it hears again."""

    operator_id: str
    interactive_max: int
    settlement_max: int
    requests_per_s_max: float
    interactive_used: int
    settlement_used: int
    requests_per_s_used: float | None


class InstanceTakenError(Exception):
    """Another live daemon has this daemon's name; the message says which."""


class OperatorState(NamedTuple):
    """An operator's row as read at one moment; spans in seconds are on the database's clock, as of then."""

    operator_id: str
    revision: int
    breaker: Breaker
    circuit_age_s: float | None
    """Since the circuit last changed; None where it was never open."""
    ping_request_id: UUID | None
    is_paused: bool
    interactive_backoff_s: float
    settlement_backoff_s: float
    """Until when the operator asked to be left alone; 0 or less where it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitWrite:
    """What a daemon has decided of an operator that it saw at `revision`; None: nothing to say of that."""

    operator_id: str
    revision: int
    breaker: Breaker
    success_s_ago: float | None = None
    failure_s_ago: float | None = None
    interactive_backoff_s: float | None = None
    settlement_backoff_s: float | None = None
