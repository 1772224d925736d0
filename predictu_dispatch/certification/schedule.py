"""Decides which scenarios can be played, in which order, and its parts. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.steps import Pause, Read, Send, Step
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core.methods import Method


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
