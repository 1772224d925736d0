"""The scenarios as data: names resolve, ids are permanent, amounts are small, texts are plain."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from predictu_dispatch.certification.preparing import prepare
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.result import digest_of
from predictu_dispatch.certification.scenario import Expectation, Group, Need, Scenario
from predictu_dispatch.certification.scenarios import ALL
from predictu_dispatch.certification.schedule import required_money
from predictu_dispatch.certification.steps import (
    AFTER,
    BEFORE,
    RESUMED,
    AboveBalance,
    Again,
    AtOnce,
    Batch,
    Delivery,
    Handshake,
    Pause,
    Read,
    ReadLedger,
    Send,
    Step,
    TokenFault,
)
from predictu_dispatch.core.methods import RULES, Method
from tests.support.sandboxes import NOW, RUN, target_for

IDS = (Path(__file__).parent / "scenario_ids.txt").read_text(encoding="utf-8").split()
"""Every id that was ever in a report. It may be added to; no id is removed or given to another."""
BALANCE_MAX = 10_000
TITLE_CHARS_MAX, TEXT_CHARS_MAX, SENTENCE_WORDS_MAX = 90, 320, 36

each_scenario = pytest.mark.parametrize("scenario", ALL, ids=[scenario.id for scenario in ALL])


def flat(steps: tuple[Step, ...]) -> Iterator[Step]:
    """All steps, with those of an AtOnce in place of it."""
    for step in steps:
        yield from step.sends if isinstance(step, AtOnce) else (step,)


def fields_of(expectation: Expectation) -> dict[str, Any]:
    return {field.name: getattr(expectation, field.name) for field in fields(expectation)}


def test_ids_are_permanent_and_begin_with_their_group() -> None:
    assert [scenario.id for scenario in ALL] == IDS
    assert len(set(IDS)) == len(IDS)
    assert all(re.fullmatch(rf"{scenario.group}-[a-z0-9-]+", scenario.id) for scenario in ALL)
    assert list(dict.fromkeys(scenario.group for scenario in ALL)) == list(Group)


@each_scenario
@pytest.mark.parametrize("amount_format", ["subunits", "decimal"])
def test_every_request_can_be_prepared(scenario: Scenario, amount_format: str) -> None:
    target = target_for(amount_format=amount_format)
    earlier: dict[str, Prepared] = {}
    for step in scenario.steps:
        if not isinstance(step, Pause | Handshake | ReadLedger):
            # It raises for names that are used twice or lead nowhere, and for missing params.
            prepared = prepare(
                step,
                run=RUN,
                scenario_id=scenario.id,
                target=target,
                players=scenario.players,
                balances={0: BALANCE_MAX, 1: BALANCE_MAX},
                earlier=earlier,
                now=NOW,
            )
            earlier |= {one.name: one for one in prepared}
    for step in flat(scenario.steps):
        if isinstance(step, Send):
            if step.method is Method.BET_MAKE and not isinstance(step.amount, AboveBalance):
                assert 0 < (step.amount or 0) <= 1_000
            assert step.amount is not None or "amount" not in RULES[step.method].required
            placement = earlier.get(step.rollback_of)
            assert placement is None or placement.bet_id == earlier[step.name].bet_id
            assert step.player in scenario.players or not RULES[step.method].required or not scenario.players
        elif isinstance(step, Batch):
            assert len(step.methods) == len(step.amounts)
            assert 1 <= step.in_flight <= 64


@each_scenario
def test_every_name_in_an_expectation_is_that_of_a_request_or_a_reading(scenario: Scenario) -> None:
    steps = list(flat(scenario.steps))
    requests = {step.name for step in steps if isinstance(step, Send | Again | Batch)}
    is_read = bool(scenario.players)
    pause_at = next((index for index, step in enumerate(steps) if isinstance(step, Pause)), len(steps))
    reads = [(step.name, index < pause_at) for index, step in enumerate(steps) if isinstance(step, Read)]
    # In order, and whether it is ahead of the pause: over it nothing may be compared.
    readings = {BEFORE: (0, True)} | {name: (1 + at, is_ahead) for at, (name, is_ahead) in enumerate(reads)}
    has_pause = pause_at < len(steps)
    readings |= {RESUMED: (50, False)} if has_pause else {}
    readings |= {AFTER: (99, not has_pause)}
    for expectation in scenario.expectations:
        given = fields_of(expectation)
        of = given.get("of", ())
        assert requests.issuperset((of,) if isinstance(of, str) else of), expectation
        assert given.get("ping", "ping") in requests | {"ping"}
        assert given.get("player", 0) in (scenario.players or (0,))
        if "since" in given:
            assert is_read
            (since, is_ahead), (until, is_until_ahead) = readings[given["since"]], readings[given["until"]]
            assert since < until, expectation
            assert is_ahead == is_until_ahead, expectation
        assert given.get("reading", AFTER) in readings


UNJUDGED = {
    "repetition-another-body": {"changed-debit"},
    "repetition-two-players": {"other-refund"},
    "order-rollback-twice": {"second-rollback"},
    "order-rollback-of-unknown-twice": {"second-rollback"},
    "order-rollback-beside-debit": {"debit-1", "debit-2", "debit-3", "debit-4"},
}
"""Requests that may be answered in any way, because only the money counts."""


@each_scenario
def test_every_answer_is_judged_and_every_balance(scenario: Scenario) -> None:
    judged = {name for each in scenario.expectations for name in _names(fields_of(each).get("of", ()))}
    answered = {
        step.name
        for step in flat(scenario.steps)
        if isinstance(step, Again) or (isinstance(step, Send | Batch) and step.delivery is Delivery.COMPLETE)
    }
    assert answered - judged == UNJUDGED.get(scenario.id, set())
    moved = {fields_of(each).get("player") for each in scenario.expectations if "since" in fields_of(each)}
    assert moved == set(scenario.players)


def _names(of: str | tuple[str, ...]) -> tuple[str, ...]:
    return (of,) if isinstance(of, str) else of


def test_a_balance_of_100_is_enough_for_the_whole_suite() -> None:
    alone = [scenario for scenario in ALL if Need.TWO_PLAYERS not in scenario.needs]
    assert all(amount <= BALANCE_MAX for amount in required_money(ALL, 2).values())
    assert all(amount <= BALANCE_MAX for amount in required_money(alone, 1).values())


@each_scenario
def test_repetitions_that_are_all_booked_cannot_cancel_out_between_two_readings(scenario: Scenario) -> None:
    first = {step.name: step for step in flat(scenario.steps) if isinstance(step, Send)}
    sums: dict[int, set[int]] = {}
    for step in flat(scenario.steps):
        if isinstance(step, Read | Pause):
            sums.clear()
            continue
        player, effect = 0, 0
        if isinstance(step, Again):
            player, effect = first[step.of].player, _effect(first[step.of].method, first[step.of].amount)
        elif isinstance(step, Batch) and step.again:
            effect = sum(map(_effect, step.methods, step.amounts))
        if effect:
            known = sums.setdefault(player, {0})
            assert -effect not in known, f"{step} hides a repetition before it"
            known |= {one + effect for one in known}


def _effect(method: Method, amount: int | AboveBalance | None) -> int:
    subunits = amount if isinstance(amount, int) else 0
    return -subunits if method is Method.BET_MAKE else subunits


def test_pauses_last_70_s_at_most_and_there_is_one_in_a_scenario() -> None:
    pauses = [[step.seconds for step in scenario.steps if isinstance(step, Pause)] for scenario in ALL]
    assert max(len(seconds) for seconds in pauses) == 1
    assert sorted(seconds[0] for seconds in pauses if seconds) == [10, 10, 70]


def test_a_scenario_leaves_nothing_that_the_reversal_cannot_undo() -> None:
    for scenario in ALL:
        sends = [step for step in flat(scenario.steps) if isinstance(step, Send)]
        for step in sends:
            if isinstance(step.amount, AboveBalance) and step.method is Method.BET_MAKE:
                # A debit of a part of the balance stays open, so it is rolled back.
                ends = {other.method for other in sends if other.bet == step.bet} - {Method.BET_MAKE}
                assert ends <= {Method.BET_ROLLBACK}
            if step.request_id_of:
                original = next(other for other in sends if other.name == step.request_id_of)
                assert (original.bet, original.player) == (step.bet, step.player)


def test_every_fault_of_a_token_every_delivery_and_every_method_occurs() -> None:
    steps = [step for scenario in ALL for step in flat(scenario.steps)]
    assert {step.token for step in steps if isinstance(step, Send | Again)} == set(TokenFault)
    assert {step.delivery for step in steps if isinstance(step, Send | Batch)} == set(Delivery)
    assert {step.method for step in steps if isinstance(step, Send)} == set(Method)


@each_scenario
def test_texts_are_short_and_plain(scenario: Scenario) -> None:
    assert len(scenario.title) <= TITLE_CHARS_MAX
    assert not scenario.title.endswith(".")
    for text in (scenario.why, scenario.fix, *(each.text for each in scenario.expectations)):
        assert text.endswith("."), text
        # Strings of several lines in the source: no missing and no doubled space.
        assert not re.search(r"  |[a-z][.,:;][A-Za-z]|\s$|^\s", text.replace("vectors.json", "It")), text
        assert not re.search(r"\b(process|handle|manager|helper|util)\b", text), text
    for text in (scenario.why, scenario.fix):
        assert len(text) <= TEXT_CHARS_MAX, text
        sentences = re.split(r"(?<=[.:;?]) ", text)
        assert max(len(sentence.split()) for sentence in sentences) <= SENTENCE_WORDS_MAX, text
    assert re.search(r"\d+\.\d\d EUR", scenario.why), scenario.why


@each_scenario
def test_the_digest_changes_with_every_part_of_a_scenario(scenario: Scenario) -> None:
    changed = [
        replace(scenario, id=f"{scenario.id}-x"),
        replace(scenario, title=f"{scenario.title}!"),
        replace(scenario, why=f"{scenario.why} "),
        replace(scenario, fix=f"{scenario.fix} "),
        replace(scenario, steps=scenario.steps[1:]),
        replace(scenario, expectations=scenario.expectations[1:]),
        replace(scenario, needs=scenario.needs ^ {Need.TLS}),
        replace(scenario, players=(*scenario.players, 1)),
        replace(scenario, steps=_changed_first(scenario.steps)),
    ]
    assert digest_of([scenario]) not in {digest_of([one]) for one in changed}
    assert digest_of([replace(scenario)]) == digest_of([scenario])


def _changed_first(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps with another name, amount or count in the first one."""
    first, *others = steps
    match first:
        case Send() | Again() | Read():
            first = replace(first, name=f"{first.name}-x")
        case AtOnce():
            first = replace(first, sends=first.sends[1:])
        case Batch():
            first = replace(first, count=first.count + 1)
        case _:
            return (ReadLedger(), ReadLedger(), *others)
    return (first, *others)


def test_the_digest_is_that_of_the_whole_suite_in_its_order() -> None:
    assert len({digest_of(ALL), digest_of(ALL[1:]), digest_of((*ALL[1:], ALL[0]))}) == 3


def test_the_digest_covers_fields_that_no_text_shows() -> None:
    scenario = next(each for each in ALL if each.id == "signature-missing")
    (refused, *others) = scenario.expectations
    changed = replace(scenario, expectations=(replace(refused, warned=()), *others))
    assert [each.text for each in changed.expectations] == [each.text for each in scenario.expectations]
    assert digest_of([changed]) != digest_of([scenario])
