"""The scenario about the operator's ledger, which compares all that the run has booked."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.balance_expectations import BookedOnceInLedger
from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.steps import ReadLedger

SCENARIOS: Final = (
    Scenario(
        id="ledger-each-booking-once",
        group=Group.LEDGER,
        title="The ledger has each booking of the run once",
        why="The ledger decides disputes. If a win of 7.00 EUR is missing from it or there twice, neither side can"
        " prove months later what was paid.",
        steps=(ReadLedger(),),
        expectations=(BookedOnceInLedger(),),
        fix="Write the ledger's row in the transaction that changes the balance.",
        needs=frozenset({Need.LEDGER}),
        players=(),
    ),
)
