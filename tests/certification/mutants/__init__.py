"""The mutants: copies of the reference operator, each with one bug that real wallets have had."""

from tests.certification.mutants.money import CONNECTION, MONEY
from tests.certification.mutants.mutant import Change, Mutant
from tests.certification.mutants.order import ORDER
from tests.certification.mutants.recovery import LOAD, RECOVERY
from tests.certification.mutants.repetition import REPETITION
from tests.certification.mutants.signature import ENVELOPE, SIGNATURE

MUTANTS: tuple[Mutant, ...] = (*CONNECTION, *SIGNATURE, *ENVELOPE, *MONEY, *REPETITION, *ORDER, *RECOVERY, *LOAD)

__all__ = ["MUTANTS", "Change", "Mutant"]
