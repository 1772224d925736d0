"""The classes into which a reconciliation puts each row of each side, as one ordered table.

An item is one callback with all lines of the operator's ledger that were matched to it, or one line
without a callback. It takes the first class of `TABLE` whose condition holds.
`sql/functions/reconciliation/difference_class.sql` is the same table in SQL; a test compares them
for every combination of facts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Knowledge(StrEnum):
    """What we know of a callback."""

    CONFIRMED = "confirmed"
    """Delivered. A rollback only if its debit was confirmed and the operator reversed it."""
    UNKNOWN = "unknown"
    """Final with effect `unknown`; a rollback of an unconfirmed debit; an adopted bet's debit."""
    REJECTED = "rejected"
    """Rejected with effect `none`, or a rollback answered `nothing_to_reverse`."""
    NEVER_SENT = "never_sent"
    """Cancelled, or exhausted with effect `none`."""
    PENDING = "pending"
    """Not final."""
    NO_CALLBACK = "no_callback"
    """The ledger's line was matched to no callback."""


class OtherEnd(StrEnum):
    """Whether the bet of a line without a callback has ended before."""

    NONE = "none"
    ENDED = "ended"
    """By another win, loss, sale or refund, or twice by a rollback."""
    ROLLED_BACK = "rolled_back"
    """One of the two is a rollback, the other one is none."""


class Kind(StrEnum):
    """What a class means for the reader of a report."""

    AGREED = "agreed"
    COUNTED = "counted"
    """Listed and counted; nobody owes anything because of it."""
    DIFFERENCE = "difference"
    """Open until a later run closes it or two people have explained and accepted it."""
    CONTRADICTION = "contradiction"
    """Our own records contradict each other."""


class DifferenceClass(StrEnum):
    """A class's name in the database, metrics, output and documents."""

    UNREADABLE = "unreadable"
    OUT_OF_WINDOW = "out_of_window"
    OURS = "ours"
    IN_FLIGHT = "in_flight"
    BOOKED_TWICE = "booked_twice"
    CURRENCY_DIFFERS = "currency_differs"
    PLAYER_DIFFERS = "player_differs"
    AMOUNT_DIFFERS = "amount_differs"
    BOOKED_THOUGH_REJECTED = "booked_though_rejected"
    BOOKED_THOUGH_NEVER_SENT = "booked_though_never_sent"
    DEBIT_STANDING = "debit_standing"
    ROLLED_BACK_BUT_CREDITED = "rolled_back_but_credited"
    TWO_ENDS = "two_ends"
    NO_END = "no_end"
    DAY_DIFFERS = "day_differs"
    AGREED_RESOLVES_UNKNOWN = "agreed_resolves_unknown"
    AGREED = "agreed"
    MISSING_THERE = "missing_there"
    MISSING_HERE = "missing_here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decides the class of an item."""

    is_readable: bool = True
    is_in_window: bool = True
    """The callback became final in the window, or at least one of the lines was booked in it."""
    contradicts: bool = False
    """Callback, bet and audit contradict each other."""
    knowledge: Knowledge = Knowledge.CONFIRMED
    lines: int = 1
    """Lines of the ledger in this item: 0, 1 or more."""
    may_be_elsewhere: bool = False
    """No line, and the booking may lie outside the ledger that was given."""
    is_currency_equal: bool = True
    is_player_equal: bool = True
    is_amount_equal: bool = True
    """True if there is nothing to compare; so are the two above."""
    is_debit_standing: bool = False
    """A delivered rollback without a line, whose debit stands there."""
    other_end: OtherEnd = OtherEnd.NONE
    is_without_end: bool = False
    """An old placement whose bet has no end on either side."""
    is_day_equal: bool = True


class ClassRule(NamedTuple):
    """One row of the table."""

    name: DifferenceClass
    kind: Kind
    meaning: str
    applies: Callable[[Facts], bool]


_D, _K, _E = DifferenceClass, Knowledge, OtherEnd

TABLE: Final = (
    ClassRule(_D.UNREADABLE, Kind.COUNTED, "a line that could not be read", lambda f: not f.is_readable),
    ClassRule(_D.OUT_OF_WINDOW, Kind.COUNTED, "a line outside the period", lambda f: not f.is_in_window),
    ClassRule(_D.OURS, Kind.CONTRADICTION, "our own records contradict each other", lambda f: f.contradicts),
    ClassRule(
        _D.IN_FLIGHT,
        Kind.COUNTED,
        "not final here, or the booking may be outside the ledger that was given",
        lambda f: f.knowledge is _K.PENDING or f.may_be_elsewhere,
    ),
    ClassRule(_D.BOOKED_TWICE, Kind.DIFFERENCE, "one request, several bookings there", lambda f: f.lines > 1),
    ClassRule(_D.CURRENCY_DIFFERS, Kind.DIFFERENCE, "another currency there", lambda f: not f.is_currency_equal),
    ClassRule(_D.PLAYER_DIFFERS, Kind.DIFFERENCE, "another player there", lambda f: not f.is_player_equal),
    ClassRule(_D.AMOUNT_DIFFERS, Kind.DIFFERENCE, "another amount there", lambda f: not f.is_amount_equal),
    ClassRule(
        _D.BOOKED_THOUGH_REJECTED,
        Kind.DIFFERENCE,
        "booked there, although it was rejected",
        lambda f: f.lines > 0 and f.knowledge is _K.REJECTED,
    ),
    ClassRule(
        _D.BOOKED_THOUGH_NEVER_SENT,
        Kind.DIFFERENCE,
        "booked there, although it was never sent",
        lambda f: f.lines > 0 and f.knowledge is _K.NEVER_SENT,
    ),
    ClassRule(
        _D.DEBIT_STANDING,
        Kind.DIFFERENCE,
        "the rollback was confirmed, the debit stands there",
        lambda f: f.is_debit_standing,
    ),
    ClassRule(
        _D.ROLLED_BACK_BUT_CREDITED,
        Kind.DIFFERENCE,
        "rolled back and paid out",
        lambda f: f.other_end is _E.ROLLED_BACK,
    ),
    ClassRule(_D.TWO_ENDS, Kind.DIFFERENCE, "a second end of one bet", lambda f: f.other_end is _E.ENDED),
    ClassRule(_D.NO_END, Kind.COUNTED, "an old debit without an end on either side", lambda f: f.is_without_end),
    ClassRule(_D.DAY_DIFFERS, Kind.COUNTED, "the same in another accounting day", lambda f: not f.is_day_equal),
    ClassRule(
        _D.AGREED_RESOLVES_UNKNOWN,
        Kind.AGREED,
        "the outcome was unknown here; their ledger shows it",
        lambda f: f.knowledge is _K.UNKNOWN,
    ),
    ClassRule(
        _D.AGREED,
        Kind.AGREED,
        "the same on both sides",
        lambda f: (f.knowledge is _K.CONFIRMED and f.lines > 0) or f.knowledge in (_K.REJECTED, _K.NEVER_SENT),
    ),
    ClassRule(
        _D.MISSING_THERE,
        Kind.DIFFERENCE,
        "confirmed to us, not in their ledger",
        lambda f: f.knowledge is _K.CONFIRMED,
    ),
    ClassRule(_D.MISSING_HERE, Kind.DIFFERENCE, "booked there, no such callback here", lambda _: True),
)
"""In order: an item takes the first class that applies. The last one applies always."""

RULES: Final = {rule.name: rule for rule in TABLE}


def class_of(facts: Facts) -> DifferenceClass:
    """Return the class of an item with these facts."""
    return next(rule.name for rule in TABLE if rule.applies(facts))
