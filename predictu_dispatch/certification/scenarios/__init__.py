"""All scenarios, in the order of the reports. An id never changes its meaning."""

from typing import Final

from predictu_dispatch.certification.scenario import Scenario
from predictu_dispatch.certification.scenarios import (
    connection,
    envelope,
    ledger,
    load,
    money,
    order,
    recovery,
    repetition,
    signature,
)

ALL: Final[tuple[Scenario, ...]] = (
    *connection.SCENARIOS,
    *signature.SCENARIOS,
    *envelope.SCENARIOS,
    *money.SCENARIOS,
    *repetition.SCENARIOS,
    *order.SCENARIOS,
    *recovery.SCENARIOS,
    *load.SCENARIOS,
    *ledger.SCENARIOS,
)
