"""Decides what can be played, in which order, and how much money it needs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.steps import Again, AtOnce, Batch, Pause, Read, Send, Step
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core.methods import TERMINALS, Method

_PAYOUTS: Final = frozenset({Method.BET_WIN, Method.BET_SELL})


def needs_of(target: Target) -> frozenset[Need]:
    """Return the needs that this target meets."""
    met = {
        Need.TLS: target.settings.callback_url.lower().startswith("https://"),
        Need.TWO_PLAYERS: len(target.players) > 1,
        Need.NEXT_KEY: target.next_key is not None,
        Need.DECIMAL: target.settings.amount_format == "decimal",
        Need.LEDGER: bool(target.ledger_url),
    }
    return frozenset(need for need, is_met in met.items() if is_met)


def phases(scenarios: Sequence[Scenario]) -> list[list[Scenario]]:
    """Return the order of playing: each phase ends, pauses included, before the next begins."""
    connection = [each for each in scenarios if each.group is Group.CONNECTION]
    ledger = [each for each in scenarios if each.group is Group.LEDGER]
    others = [each for each in scenarios if each.group not in (Group.CONNECTION, Group.LEDGER)]
    # What only reads comes first: if balances cannot be read, its text says what to correct. Then
    # the longest pauses begin, so that the others are played meanwhile.
    others.sort(
        key=lambda each: (
            not _only_reads(each.steps),
            -sum(step.seconds for step in each.steps if isinstance(step, Pause)),
        )
    )
    return [connection, others, ledger]


def _only_reads(steps: Sequence[Step]) -> bool:
    return all(isinstance(step, Read) or (isinstance(step, Send) and step.method is Method.BALANCE) for step in steps)


def parts(steps: Sequence[Step]) -> list[tuple[float | None, list[Step], bool]]:
    """Split the steps at the pauses: the pause before each part, its steps, whether it is last."""
    split: list[tuple[float | None, list[Step]]] = [(None, [])]
    for step in steps:
        if isinstance(step, Pause):
            split.append((step.seconds, []))
        else:
            split[-1][1].append(step)
    return [(pause_s, part, index == len(split)) for index, (pause_s, part) in enumerate(split, start=1)]


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
