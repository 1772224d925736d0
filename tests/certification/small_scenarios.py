"""Three small scenarios that leave bets open, won, lost, cut and refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from predictu_dispatch.certification.observation import Observed
from predictu_dispatch.certification.scenario import Finding, Group, Scenario, ScenarioVerdict
from predictu_dispatch.certification.steps import (
    AboveBalance,
    Again,
    AtOnce,
    Batch,
    Delivery,
    Pause,
    Send,
    Step,
    TokenFault,
)
from predictu_dispatch.core.methods import Method

STAKE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Fails:
    """An expectation that never holds."""

    text: str = "never"

    def findings(self, seen: Observed) -> Iterator[Finding]:
        yield Finding(verdict=ScenarioVerdict.FAILED, expected=self.text, observed=seen.run)


def small(scenario_id: str, *steps: Step, players: tuple[int, ...] = (0, 1)) -> Scenario:
    return Scenario(
        id=scenario_id,
        group=Group.MONEY,
        title="A title.",
        why="A reason.",
        steps=steps,
        expectations=(),
        players=players,
    )


def debit(bet: str, *, player: int = 0, delivery: Delivery = Delivery.COMPLETE) -> Send:
    return Send(name=f"debit-{bet}", method=Method.BET_MAKE, bet=bet, player=player, amount=STAKE, delivery=delivery)


def end(bet: str, method: Method, amount: int | None = None, *, player: int = 0) -> Send:
    rollback_of = f"debit-{bet}" if method is Method.BET_ROLLBACK else ""
    return Send(name=f"end-{bet}", method=method, bet=bet, player=player, amount=amount, rollback_of=rollback_of)


ENDED = small(
    "small-ended",
    debit("won"),
    end("won", Method.BET_WIN, 1250),
    debit("lost", player=1),
    end("lost", Method.BET_LOSE, player=1),
    debit("refunded"),
    end("refunded", Method.BET_REFUND, STAKE),
    debit("open", player=1),
)
"""Player 1 gains 7.50, player 2 loses 5.00, and one bet is open."""
PAUSED = small(
    "small-paused",
    debit("long"),
    Pause(seconds=0.2),
    Again(name="again", of="debit-long"),
    end("long", Method.BET_SELL, 100),
)
"""Player 1 loses 4.00; the other scenarios are played meanwhile."""
BROKEN = small(
    "small-broken",
    debit("cut", delivery=Delivery.CUT_AFTER_BODY),
    debit("half", delivery=Delivery.CUT_INSIDE_BODY),
    Send(name="forged", method=Method.BET_MAKE, bet="forged", amount=STAKE, token=TokenFault.WRONG_KEY),
    Send(name="too-much", method=Method.BET_MAKE, bet="too-much", amount=AboveBalance(by=1)),
    AtOnce(sends=(debit("twice"), Again(name="twice-again", of="debit-twice"))),
    Batch(name="stakes", methods=(Method.BET_MAKE,), amounts=(10,), count=6, in_flight=3),
    Batch(name="ends", methods=(Method.BET_WIN, Method.BET_LOSE), amounts=(25, 0), count=6, in_flight=3),
)
"""Requests without an answer, refused ones and a batch."""
SMALL = (ENDED, PAUSED, BROKEN)
