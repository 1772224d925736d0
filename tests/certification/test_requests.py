"""The bytes of a run's requests, their ids, and what they are repeated from."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.certification.requests import Prepared, again, bet_id_of, build, request_id_of
from predictu_dispatch.certification.steps import (
    AboveBalance,
    Again,
    AtOnce,
    Batch,
    Delivery,
    Read,
    Send,
    TokenFault,
)
from predictu_dispatch.core.methods import RULES, Method
from predictu_dispatch.reference_operator import callback as reference
from predictu_dispatch.reference_operator.money import AmountFormat, Money
from tests.support.sandboxes import NOW, RUN, SCENARIO, Requests, target_for

DEBIT = Send(name="debit", method=Method.BET_MAKE, bet="bet", amount=1250)


def params_of(prepared: Prepared) -> dict[str, Any]:
    params: dict[str, Any] = json.loads(prepared.body)["params"]
    return params


def test_a_placement_has_the_bytes_that_production_sends() -> None:
    prepared = Requests(target_for()).one(DEBIT)
    assert prepared.body.decode() == (
        f'{{"method":"BET_MAKE","timestamp":"2026-11-30T10:15:02.123Z","request_id":"{prepared.request_id}",'
        '"operator_id":"op_abc123","params":{"bet":{"odds":1.85,"price":54,"shares":10,"outcome":"yes",'
        '"market_id":"cert-market-1"},"amount":1250,"bet_id":"cert-20261130-101502-3f2a-repetition-at-once-bet",'
        '"currency":"EUR","player_id":"p-1"}}'
    )


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("amount_format", AmountFormat)
def test_the_reference_operator_reads_the_same_callback(method: Method, amount_format: AmountFormat) -> None:
    requests = Requests(target_for(amount_format=amount_format.value))
    prepared = requests.one(
        Send(name="it", method=method, bet="b", player=1, amount=7, rollback_of="debit" if "ROLL" in method else "")
    )
    read = reference.read_callback(prepared.body, operator_id="op_abc123", money=Money(amount_format=amount_format))
    assert isinstance(read, reference.Callback), read
    required = RULES[method].required
    assert (read.method.value, read.request_id, read.bet_id, read.rollback_of) == (
        *(prepared.method.value, prepared.request_id, prepared.bet_id),
        str(request_id_of(RUN, SCENARIO, "debit")) if "rollback_of" in required else "",
    )
    assert read.player_id == prepared.player_id == ("p-2" if "player_id" in required else "")
    assert read.amount == (prepared.amount or 0) == (7 if "amount" in required else 0)
    assert read.currency == prepared.currency == ("EUR" if "currency" in required else "")


@pytest.mark.parametrize(("digits", "written"), [(0, "1250"), (2, "12.50"), (3, "1.250"), (6, "0.001250")])
def test_a_decimal_amount_has_exactly_the_minor_digits(digits: int, written: str) -> None:
    prepared = Requests(target_for(amount_format="decimal", digits=digits)).one(DEBIT)
    assert f'"amount":{written},'.encode() in prepared.body
    assert prepared.amount == 1250


def test_further_params_are_copied_digit_by_digit_and_may_come_in_reverse_order() -> None:
    further = (("n", "9007199254740993"), ("d", "0.123456789012345678901234567890"), ("u", '"\\ud83d\\ude00 😀 a b"'))
    requests = Requests(target_for())
    straight = requests.one(replace(DEBIT, name="straight", further=further))
    reverse = requests.one(replace(DEBIT, name="reverse", further=further, is_reordered=True))
    members = ",".join(f'"{name}":{text}' for name, text in further)
    assert straight.body.endswith(f'"player_id":"p-1",{members}}}}}'.encode())
    assert [*params_of(reverse)] == [*params_of(straight)][::-1]
    assert params_of(reverse) == params_of(straight)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["amount", "x", 'q"', "é"]), values),
)


@given(value=JSON, ensure_ascii=st.booleans(), amount_format=st.sampled_from(AmountFormat), is_reordered=st.booleans())
def test_any_further_param_arrives_as_it_is_and_is_repeated_from_the_journal(
    *, value: object, ensure_ascii: bool, amount_format: AmountFormat, is_reordered: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ensure_ascii)
    requests = Requests(target_for(amount_format=amount_format.value))
    prepared = requests.one(replace(DEBIT, further=(("note", text),), is_reordered=is_reordered))
    params = json.loads(prepared.body, parse_float=Decimal)["params"]
    assert params["note"] == value
    assert params["amount"] == (1250 if amount_format is AmountFormat.SUBUNITS else Decimal("12.50"))
    assert Prepared.from_json(json.loads(json.dumps(prepared.as_json()))) == prepared


def test_ids_follow_from_run_scenario_and_name_and_look_like_those_of_production() -> None:
    one = request_id_of(RUN, SCENARIO, "debit")
    assert one == request_id_of(RUN, SCENARIO, "debit")
    others = {
        request_id_of("20261130-101502-3f2b", SCENARIO, "debit"),
        request_id_of(RUN, "order-win", "debit"),
        request_id_of(RUN, SCENARIO, "debit-1"),
    }
    assert len({one, *others}) == 4
    # gen_random_uuid() makes version 4, and some operators accept no other.
    assert {(each.version, each.variant) for each in (one, *others)} == {(4, one.variant)}
    with pytest.raises(ValueError, match="more than 200 characters"):
        bet_id_of(RUN, SCENARIO, "b" * 200)


def test_a_repetition_has_the_same_bytes_later_and_counts_every_sending_of_its_id() -> None:
    requests = Requests(target_for())
    debit = requests.one(replace(DEBIT, delivery=Delivery.CUT_AFTER_BODY))
    [first] = requests.all_of(Again(name="first", of="debit"), now=NOW + timedelta(seconds=70))
    second = requests.one(Again(name="second", of="debit", token=TokenFault.USED_JTI))
    other = requests.one(Send(name="other", method=Method.BET_MAKE, bet="bet", amount=9, request_id_of="debit"))
    assert first == replace(debit, name="first", number=2, delivery=Delivery.COMPLETE)
    assert second == replace(first, name="second", number=3, token=TokenFault.USED_JTI)
    assert (other.request_id, other.number, params_of(other)["amount"]) == (debit.request_id, 4, 9)
    assert other.body != debit.body


def test_a_repetition_of_a_hostile_request_is_a_good_one() -> None:
    requests = Requests(target_for())
    hostile = requests.one(replace(DEBIT, token=TokenFault.OTHER_BODY))
    assert json.loads(hostile.token_body)["params"] == params_of(hostile) | {"amount": 625}
    good = requests.one(Again(name="good", of="debit"))
    assert (good.body, good.token, good.token_body) == (hostile.body, TokenFault.NONE, b"")
    assert requests.one(Again(name="hostile", of="debit", token=TokenFault.OTHER_BODY)).token_body == hostile.token_body


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"delivery": Delivery.CUT_INSIDE_BODY, "currency": "XTS"},
        {"token": TokenFault.OTHER_BODY, "further": (("ü", '"\\u0000 \\" é"'), ("n", "1e400"))},
    ],
)
def test_the_journal_can_send_it_again_byte_for_byte(changes: dict[str, Any]) -> None:
    requests = Requests(target_for())
    requests.one(DEBIT)
    for step in (
        replace(DEBIT, name="other", **changes),
        Send(name="rollback", method=Method.BET_ROLLBACK, bet="bet", amount=1250, rollback_of="debit"),
        Send(name="ping", method=Method.PING),
    ):
        prepared = requests.one(step)
        assert Prepared.from_json(json.loads(json.dumps(prepared.as_json()))) == prepared


def test_a_rollback_names_a_placement_that_is_sent_later_or_never() -> None:
    requests = Requests(target_for())
    rollback = requests.one(
        Send(name="rollback", method=Method.BET_ROLLBACK, bet="bet", amount=1250, rollback_of="debit")
    )
    debit = requests.one(DEBIT)
    assert rollback.rollback_of == debit.request_id == params_of(rollback)["rollback_of"]


def test_a_rollback_names_the_request_id_that_its_placement_really_had() -> None:
    requests = Requests(target_for())
    first = requests.one(DEBIT)
    requests.one(Send(name="again", method=Method.BET_MAKE, bet="bet-2", amount=9, request_id_of="debit"))
    rollback = requests.one(Send(name="undo", method=Method.BET_ROLLBACK, bet="bet-2", amount=9, rollback_of="again"))
    assert rollback.rollback_of == first.request_id


def test_the_reversal_builds_the_rollback_that_a_scenario_would_send() -> None:
    requests = Requests(target_for())
    placed = requests.one(replace(DEBIT, currency="XTS"))
    in_scenario = requests.one(
        Send(name="undo", method=Method.BET_ROLLBACK, bet="bet", amount=1250, rollback_of="debit", currency="XTS")
    )
    built = build(
        run=RUN,
        scenario_id=SCENARIO,
        name="undo",
        method=Method.BET_ROLLBACK,
        target=requests.target,
        now=NOW,
        player_id=placed.player_id,
        bet_id=placed.bet_id,
        amount=placed.amount,
        currency=placed.currency,
        rollback_of=placed.request_id,
    )
    assert built == in_scenario
    assert params_of(built)["currency"] == params_of(placed)["currency"] == "XTS"
    assert again(built, name="undo-2", number=2).body == built.body


def test_an_amount_follows_the_newest_balance() -> None:
    requests = Requests(target_for(), balances={0: 10_000, 1: None})
    above = requests.one(replace(DEBIT, name="above", amount=AboveBalance(by=1)))
    below = requests.one(replace(DEBIT, name="below", amount=AboveBalance(by=-100)))
    assert (above.amount, params_of(above)["amount"], below.amount) == (10_001, 10_001, 9_900)
    with pytest.raises(ValueError, match="the balance of player 2 is not known"):
        requests.one(replace(DEBIT, name="unknown", player=1, amount=AboveBalance(by=1)))
    with pytest.raises(ValueError, match="too low"):
        requests.one(replace(DEBIT, name="low", amount=AboveBalance(by=-10_000)))


def test_requests_at_once_may_be_one_request_and_its_repetitions() -> None:
    step = AtOnce(sends=(DEBIT, Again(name="second", of="debit"), Again(name="third", of="debit")))
    prepared = Requests(target_for()).all_of(step)
    assert [(one.name, one.number) for one in prepared] == [("debit", 1), ("second", 2), ("third", 3)]
    assert len({one.body for one in prepared}) == 1


def test_a_batch_places_and_ends_each_bet_of_its_players() -> None:
    requests = Requests(target_for())
    placed = requests.all_of(Batch(name="place", methods=(Method.BET_MAKE,), amounts=(10,), count=4, in_flight=2))
    ends = requests.all_of(
        Batch(name="end", methods=(Method.BET_WIN, Method.BET_LOSE, Method.BET_ROLLBACK), amounts=(25, 0, 10), count=4,
               in_flight=2)
    )  # fmt: skip
    repeated = requests.all_of(
        Batch(name="again", methods=(), amounts=(), count=4, in_flight=4, again="end", delivery=Delivery.NEVER_READ)
    )
    assert [one.name for one in placed] == ["place-1", "place-2", "place-3", "place-4"]
    assert [one.bet_id for one in placed] == [bet_id_of(RUN, SCENARIO, f"b-{n}") for n in (1, 2, 3, 4)]
    assert [one.player_id for one in placed] == ["p-1", "p-2", "p-1", "p-2"]
    assert [(one.bet_id, one.player_id) for one in ends] == [(one.bet_id, one.player_id) for one in placed]
    assert [(one.method.name, one.amount) for one in ends] == [
        ("BET_WIN", 25),
        ("BET_LOSE", None),
        ("BET_ROLLBACK", 10),
        ("BET_WIN", 25),
    ]
    assert [one.rollback_of for one in ends] == ["", "", placed[2].request_id, ""]
    assert [(one.body, one.number, one.delivery) for one in repeated] == [
        (one.body, 2, Delivery.NEVER_READ) for one in ends
    ]
    assert {UUID(one.request_id) for one in (*placed, *ends)} == {
        request_id_of(RUN, SCENARIO, one.name) for one in (*placed, *ends)
    }


def test_a_batch_of_a_scenario_with_one_player_has_no_other() -> None:
    batch = Batch(name="place", methods=(Method.BET_MAKE,), amounts=(10,), count=3, in_flight=2)
    assert {one.player_id for one in Requests(target_for(), players=(0,)).all_of(batch)} == {"p-1"}


def test_a_reading_asks_for_the_balance_of_each_player() -> None:
    prepared = Requests(target_for(), players=(0, 1)).all_of(Read(name="before"))
    assert [(one.name, one.method, one.player_id) for one in prepared] == [
        ("before-1", Method.BALANCE, "p-1"),
        ("before-2", Method.BALANCE, "p-2"),
    ]


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        (DEBIT, "two requests have the name debit"),
        (Again(name="again", of="debt"), "no earlier request has the name debt"),
        (Again(name="again", of="debit", token=TokenFault.OTHER_BODY), "only a Send"),
        (replace(DEBIT, name="other", bet=""), "BET_MAKE needs bet_id"),
        (replace(DEBIT, name="other", amount=None), "BET_MAKE needs amount"),
        (Send(name="undo", method=Method.BET_ROLLBACK, bet="b", amount=1), "BET_ROLLBACK needs rollback_of"),
        (Batch(name="undo", methods=(Method.BET_ROLLBACK,), amounts=(1,), count=1, in_flight=1), "no earlier batch"),
    ],
)
def test_a_scenario_that_contradicts_itself_is_refused(step: Send | Again | Batch, fault: str) -> None:
    requests = Requests(target_for())
    requests.one(DEBIT)
    with pytest.raises(ValueError, match=fault):
        requests.all_of(step)
