"""Computes how much money each test player needs for a run. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from predictu_dispatch.certification.scenario import Scenario
from predictu_dispatch.certification.steps import Again, AtOnce, Batch, Pause, Send, Step
from predictu_dispatch.core.methods import TERMINALS, Method

_PAYOUTS = frozenset({Method.BET_WIN, Method.BET_SELL})


def required_money(scenarios: Sequence[Scenario], players: int) -> Mapping[int, int]:
    """Return the subunits that each player needs, by index, so that no debit is refused.

    Open bets are rolled back after their scenario; what bets lose stays lost until the run's end.
    Scenarios with a pause are played beside others. Debits that depend on the balance count as 0.
    """
    lost: Counter[int] = Counter()
    beside: Counter[int] = Counter()
    largest: Counter[int] = Counter()
    for scenario in scenarios:
        debits, losses = _debits_and_losses(scenario, players)
        lost += losses
        if any(isinstance(step, Pause) for step in scenario.steps):
            beside += debits
        else:
            largest |= debits
    # What a scenario loses is part of its debits.
    return lost + beside + largest


def _debits_and_losses(scenario: Scenario, players: int) -> tuple[Counter[int], Counter[int]]:
    """Return the sum of a scenario's debits, and what its ended bets lose, by player."""
    debits: dict[str, tuple[int, int]] = {}
    returned: dict[str, int] = {}
    for method, bet, player, amount in _requests(scenario, players):
        if method is Method.BET_MAKE:
            debits[bet] = (player, debits.get(bet, (player, 0))[1] + amount)
        elif method in TERMINALS and bet in debits and bet not in returned:
            is_paid = method in _PAYOUTS
            returned[bet] = amount if is_paid else 0 if method is Method.BET_LOSE else debits[bet][1]
    debited: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for bet, (player, amount) in debits.items():
        debited[player] += amount
        lost[player] += max(0, amount - returned.get(bet, amount))
    return debited, lost


def _requests(scenario: Scenario, players: int) -> Iterator[tuple[Method, str, int, int]]:
    for step in _flat(scenario.steps):
        if isinstance(step, Send) and not step.is_unknown_player:
            yield step.method, step.bet, step.player, step.amount if isinstance(step.amount, int) else 0
        elif isinstance(step, Batch) and not step.again:
            own = [player for player in scenario.players if player < players] or [0]
            for index in range(step.count):
                turn = index % len(step.methods)
                yield step.methods[turn], f"b-{index + 1}", own[index % len(own)], step.amounts[turn]


def _flat(steps: Iterable[Step]) -> Iterator[Step | Again]:
    for step in steps:
        if isinstance(step, AtOnce):
            yield from step.sends
        else:
            yield step
