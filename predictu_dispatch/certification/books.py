"""What a run did to its players' money, from the journal alone; what must be undone. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from predictu_dispatch.certification.bookings import Booking, bookings_of
from predictu_dispatch.certification.entries import Entry, StartEntry, VerdictEntry
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.methods import TERMINALS, Method

_GIVE_BACKS: Final = frozenset({Method.BET_REFUND, Method.BET_ROLLBACK})
_SUMS_MAX: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class Bet:
    """All bookings under one bet_id for one player, in the journal's order."""

    bet_id: str
    player_id: str
    scenario: str
    bookings: tuple[Booking, ...]
    is_suspect: bool
    """Its scenario failed or was not played to its end: refused debits are rolled back too."""

    @cached_property
    def placements(self) -> tuple[Booking, ...]:
        return tuple(each for each in self.bookings if each.request.method is Method.BET_MAKE)

    @cached_property
    def ends(self) -> tuple[Booking, ...]:
        return tuple(each for each in self.bookings if each.request.method in TERMINALS)

    def rollbacks_of(self, placement: Booking) -> tuple[Booking, ...]:
        wanted = placement.request.request_id
        return tuple(each for each in self.ends if each.request.rollback_of == wanted)

    @property
    def to_repeat(self) -> tuple[Booking, ...]:
        """Requests whose outcome is unknown; never a debit whose rollback may be booked."""
        return tuple(
            each
            for each in (*self.placements, *self.ends)
            if each.effect is Effect.UNKNOWN
            and not each.is_answered
            and each.is_signed
            and not any(rollback.is_signed and rollback.may_be_booked for rollback in self.rollbacks_of(each))
        )

    @property
    def to_roll_back(self) -> tuple[Booking, ...]:
        """Placements that may be booked and have no confirmed end."""
        closed = self._accounts.closed
        return tuple(
            each
            for each in self.placements
            if each.request.request_id not in closed
            and (each.effect is not Effect.NONE or self._may_be_booked_all_the_same(each))
            and not self._is_nothing_left(each)
        )

    @property
    def unknown_ends(self) -> tuple[Booking, ...]:
        """Ends that may be booked, although no end of the bet was confirmed."""
        if self._accounts.closed or any(each.effect is Effect.APPLIED for each in self.ends):
            return ()
        return tuple(each for each in self.ends if each.effect is Effect.UNKNOWN and each.is_signed)

    @property
    def to_ask_again(self) -> tuple[Booking, ...]:
        """Ends with an undeclared answer; they may keep the debit from being rolled back."""
        return tuple(each for each in self.ends if each.is_undeclared and each.is_signed) if self.to_roll_back else ()

    @property
    def net(self) -> int:
        """The confirmed effect of the ended part of the bet on the player."""
        return self._accounts.net

    @property
    def doubtful(self) -> tuple[int, ...]:
        """Confirmed credits that a correct operator would not have booked; it may not have."""
        return self._accounts.doubtful

    def _may_be_booked_all_the_same(self, placement: Booking) -> bool:
        """Whether a refused debit is rolled back, once, because the operator showed a fault."""
        is_asked = any(each.is_answered for each in self.rollbacks_of(placement))
        return self.is_suspect and placement.was_sent and not is_asked

    def _is_nothing_left(self, placement: Booking) -> bool:
        """Whether the answers say that a debit is not booked, or was given back."""
        rollbacks = self.rollbacks_of(placement)
        is_applied = placement.effect is Effect.APPLIED
        # A rollback that was confirmed beside a debit may have given it back: the next one knows.
        if is_applied and not any(each.confirmed_at > placement.booked_at for each in rollbacks):
            return False
        last_at = placement.sendings[-1].sent_at
        later = [each for each in rollbacks if each.sendings[-1].sent_at > last_at]
        # A wallet may refuse the rollback of what it refused, of what it does not trust, or of what
        # it gave back.
        is_refused = placement.is_refused or not placement.is_signed or is_applied
        return any(each.is_nothing_to_reverse or (is_refused and each.is_refused) for each in later)

    @cached_property
    def _accounts(self) -> _Accounts:
        return _account(self)


@dataclass(kw_only=True)
class _Accounts:
    """The sum of a bet, and the placements that have a confirmed end."""

    net: int = 0
    doubtful: tuple[int, ...] = ()
    closed: set[str] = field(default_factory=set)


def _account(bet: Bet) -> _Accounts:
    """Give each confirmed end its placement; what is left over is doubtful."""
    accounts = _Accounts()
    placements = {each.request.request_id: each for each in bet.placements}
    for end in bet.ends:
        if end.effect is not Effect.APPLIED:
            continue
        effect = end.amount if end.request.method is not Method.BET_LOSE else 0
        placement = _placement_of(end, placements, accounts.closed)
        if placement is None:
            accounts.doubtful += (effect,) if effect else ()
            continue
        accounts.closed.add(placement.request.request_id)
        if end.request.method not in _GIVE_BACKS:
            accounts.net += effect - placement.amount
        elif placement.effect is Effect.NONE:
            # A rollback of a debit that is not booked may be confirmed, and moves nothing.
            accounts.doubtful += (effect,)
        else:
            accounts.net += effect - placement.amount
    return accounts


def _placement_of(end: Booking, placements: dict[str, Booking], closed: set[str]) -> Booking | None:
    """Return the placement that a confirmed end closes; None if it closes none."""
    if end.request.method is Method.BET_ROLLBACK:
        named = placements.get(end.request.rollback_of)
        if named is None or named.request.request_id in closed:
            return None
        # A debit that was sent and booked only after its rollback was confirmed stands.
        return named if named.effect is Effect.NONE or named.booked_at < end.sendings[-1].sent_at else None
    applied = [each for each in placements.values() if each.effect is Effect.APPLIED]
    unknown = [each for each in placements.values() if each.effect is Effect.UNKNOWN]
    return next((each for each in (*applied, *unknown) if each.request.request_id not in closed), None)


def bets_of(entries: Sequence[Entry], *, scenario: str = "") -> list[Bet]:
    """Return all bets, or those of one scenario."""
    passed = {
        entry.scenario
        for entry in entries
        if isinstance(entry, VerdictEntry) and entry.verdict is not ScenarioVerdict.FAILED
    }
    grouped: dict[tuple[str, str], list[Booking]] = defaultdict(list)
    for booking in bookings_of(entries):
        if not scenario or booking.request.scenario_id == scenario:
            grouped[booking.request.bet_id, booking.request.player_id].append(booking)
    return [
        Bet(
            bet_id=bet_id,
            player_id=player_id,
            scenario=bookings[0].request.scenario_id,
            bookings=tuple(bookings),
            is_suspect=bookings[0].request.scenario_id not in passed,
        )
        for (bet_id, player_id), bookings in grouped.items()
    ]


def starts_of(entries: Iterable[Entry]) -> dict[str, int]:
    """Return each player's balance before the run's first debit."""
    return {entry.player_id: entry.balance for entry in entries if isinstance(entry, StartEntry)}


def net_of(bets: Iterable[Bet], player_id: str, difference: int) -> int:
    """Return the confirmed net effect of the ended bets on a player, which is to be compensated.

    Doubtful credits are counted as far as they bring it nearer to the `difference` of the player's
    balances: only those can have been booked.
    """
    own = [bet for bet in bets if bet.player_id == player_id]
    net = sum(bet.net for bet in own)
    sums = {net}
    for amount in (amount for bet in own for amount in bet.doubtful):
        sums |= {total + amount for total in sums}
        if len(sums) > _SUMS_MAX:
            return net
    return min(sums, key=lambda total: (abs(difference - total), abs(total - net)))
