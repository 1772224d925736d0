"""The mutants: copies of the reference operator, each with one bug that real wallets have had."""

from tests.certification.mutants.connection import CONNECTION
from tests.certification.mutants.envelope import ENVELOPE
from tests.certification.mutants.money import MONEY
from tests.certification.mutants.mutant import Change, Mutant
from tests.certification.mutants.order import ORDER
from tests.certification.mutants.recovery import LEDGER, LOAD, RECOVERY
from tests.certification.mutants.repetition import REPETITION
from tests.certification.mutants.signature import SIGNATURE

MUTANTS: tuple[Mutant, ...] = (
    *CONNECTION,
    *SIGNATURE,
    *ENVELOPE,
    *MONEY,
    *REPETITION,
    *ORDER,
    *RECOVERY,
    *LOAD,
    *LEDGER,
)


def changes_of(name: str) -> tuple[Change, ...]:
    """Return the changes of the mutant with this name."""
    (changes,) = (each.changes for each in MUTANTS if each.name == name)
    return tuple(changes)


__all__ = ["MUTANTS", "Change", "Mutant", "changes_of"]
