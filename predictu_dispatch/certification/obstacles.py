"""What kept a scenario from being played to its end, as a finding. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from predictu_dispatch.certification.observation import Observed, Outcome, Sent
from predictu_dispatch.certification.recording import outcome_entry
from predictu_dispatch.certification.result import UNREACHED_FIX
from predictu_dispatch.certification.scenario import Finding, ScenarioVerdict
from predictu_dispatch.certification.unresolved import reason_of

_UNREAD_ADVICE: Final = (
    "Answer BALANCE with HTTP 200, status OK and the balance as a JSON number in the agreed amount_format. If the"
    " answer is 401, compare the key, the operator id, and the digest: it is that of the bytes as they arrived."
)
_MONEY_ADVICE: Final = "Correct the scenarios that failed before: one of them took the player's money."


def too_low(player_id: str, has: str, needs: str) -> Finding:
    """Return that a player has too little; the run began with enough, so a scenario took it."""
    return Finding(
        verdict=ScenarioVerdict.FAILED,
        expected=f"player {player_id} has {needs} or more, which this scenario needs",
        observed=f"player {player_id} has {has}",
        advice=_MONEY_ADVICE,
        is_obstacle=True,
    )


def moved_too_much(seen: Observed, player_id: str, moved: int, allowed: int) -> Finding:
    """Return that a balance moved by more than all that was sent."""
    shown = seen.money
    return Finding(
        verdict=ScenarioVerdict.FAILED,
        expected=f"the scenario moves the balance of player {player_id} by at most {shown(allowed)}",
        observed=f"player {player_id} has {shown(abs(moved))} {'more' if moved > 0 else 'less'} than before it",
        advice="Compare amount_format with what the wallet reads, subunits or decimal numbers, and round no amount."
        " Nobody else may use the test players during a run.",
        is_obstacle=True,
    )


def unprepared(why: str) -> Finding:
    """Return that a request could not be made, because of a balance."""
    return Finding(
        verdict=ScenarioVerdict.FAILED,
        expected="the players have the balances that the scenario needs",
        observed=f"the scenario could not be played to its end: {why}",
        advice=_MONEY_ADVICE,
        is_obstacle=True,
    )


def unread_balances(unread: Sequence[Sent]) -> Finding:
    """Return that these BALANCE inquiries were not answered with a balance."""
    whys = [
        f"player {sent.player_id}: "
        + (
            f"the answer has no valid balance ({sent.judgement.anomaly or 'missing'})"
            if sent.outcome is Outcome.CONFIRMED
            else reason_of(outcome_entry(0, sent))
        )
        for sent in unread
    ]
    return Finding(
        verdict=ScenarioVerdict.FAILED,
        expected="BALANCE is answered with the player's balance",
        observed="; ".join(whys),
        advice=UNREACHED_FIX if all(sent.outcome is Outcome.NOT_SENT for sent in unread) else _UNREAD_ADVICE,
        is_obstacle=True,
        about=tuple(sent.name for sent in unread),
    )
