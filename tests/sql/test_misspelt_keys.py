"""Keys of a producer that look like ours: misspellings are refused, all others pass untouched."""

import json
from random import Random

import pytest

from tests.sql.test_enqueue import BALANCE, BET, WIN, refusal_of, without
from tests.support.harness import Harness, enqueue, placement_params

MISSPELT = {
    "player_id": ("playerid", "player_Id", "playerId", "PlayerID", "player-id", "_player_id", "playr_id", "plaeyr_id"),
    "currency": ("Currency", "curency", "currancy", "curerncy"),
    "amount": ("Amount", "AMOUNT", "ammount", "amuont", "a_mount"),
    "bet_id": ("betId", "betid", "Bet Id"),
    "bet": ("Bet", "BET_"),
    "rollback_of": ("rollbackOf", "rolback_of", "rollback.of"),
}
MISSPELT_IN_BET = {
    "market_id": ("marketId", "marketid", "markt_id"),
    "outcome": ("Outcome", "outcme"),
    "odds": ("Odds", "od_ds"),
    "shares": ("Shares", "shaers"),
    "price": ("Price", "PRICE"),
}
FURTHER = (
    *(
        "player_id_hash",
        "player",
        "player_ids",
        "player_name",
        "player_uid",
        "playerGid",
        "prayer",
        "layer_id",
        "amount_eur",
        "amounts",
        "amount2",
    ),
    *("amoun", "account", "currency_code", "currencies", "bet_ids", "bot_id", "bets", "beta", "betslip_id", "test"),
    *("rollback", "odds", "market_id", "Price", "session", "ip", "", "é", "playér_ïd", "金額", 'a"t', "a\\t"),
)
FURTHER_IN_BET = (
    *(
        "market",
        "market_name",
        "market_ids",
        "market_uid",
        "outcomes",
        "outcome_id",
        "odd",
        "odds_decimal",
        "oddset",
        "share",
        "shared",
    ),
    *("prices", "prize", "price_eur", "amount", "Amount", "playerId", "bet_id", "prince"),
)


async def test_a_misspelt_key_of_ours_is_refused_and_named(harness: Harness) -> None:
    for ours, spellings in MISSPELT.items():
        for given in spellings:
            refused = await refusal_of(harness, "BALANCE", BALANCE | {given: 1})
            assert refused.args[0] == f'bad params for BALANCE: "{ours}" is written "{given}"'
            assert f'Write "{ours}"' in str(refused.hint)
    for ours, spellings in MISSPELT_IN_BET.items():
        for given in spellings:
            refused = await refusal_of(harness, "BET_MAKE", placement_params("b1") | {"bet": BET | {given: 1}})
            assert refused.args[0] == f'bad params for BET_MAKE: "{ours}" is written "{given}"'


async def test_further_keys_with_a_meaning_of_their_own_pass_untouched(harness: Harness) -> None:
    further = {key: {"playerId": 1} for key in FURTHER}
    params = placement_params("b1") | further | {"bet": BET | dict.fromkeys(FURTHER_IN_BET, "playerId")}
    placement = await enqueue(harness.producer, "BET_MAKE", params)
    assert json.loads((await harness.callback(placement))["params"]) == params
    await enqueue(harness.producer, "BET_WIN", WIN | further | {"bet_id": "b1", "bet": "not an object"})


async def test_the_hint_about_a_missing_key_names_the_one_that_was_perhaps_meant(harness: Harness) -> None:
    for params, given, ours in [
        (without(BALANCE, "player_id") | {"playerid": "p1"}, "playerid", "player_id"),
        (without(BALANCE, "player_id") | {"player": "p1"}, "player", "player_id"),
        (without(BALANCE, "currency") | {"currenci": "EUR"}, "currenci", "currency"),
    ]:
        refused = await refusal_of(harness, "BALANCE", params)
        assert f'If "{given}" is meant for "{ours}", rename it.' in str(refused.hint)
    for given, ours in [("market", "market_id"), ("odd", "odds"), ("share", "shares"), ("prise", "price")]:
        bet = without(BET, ours) | {given: 1}
        refused = await refusal_of(harness, "BET_MAKE", placement_params("b1") | {"bet": bet})
        assert refused.args[0] == f'bad params for BET_MAKE: "bet" lacks {ours}'
        assert f'If "{given}" is meant for "{ours}", rename it.' in str(refused.hint)


async def test_a_request_that_was_enqueued_before_a_check_existed_may_be_repeated(harness: Harness) -> None:
    """As after an upgrade: the check comes after the lookup of the request_id."""
    request_id = await enqueue(harness.producer, "BALANCE", BALANCE | {"note": 1})
    params = BALANCE | {"playerId": 1}
    await harness.owner.execute("alter table predictu_dispatch.callback disable trigger callback_params_guarded")
    await harness.owner.execute("update predictu_dispatch.callback set params = $1", json.dumps(params))
    assert await enqueue(harness.producer, "BALANCE", params, request_id=request_id) == request_id


def is_one_edit(a: str, b: str) -> bool:
    """True if the optimal string alignment distance is 1."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        rows.append([i])
        for j, y in enumerate(b, 1):
            best = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (x != y))
            if i > 1 and j > 1 and (x, a[i - 2]) == (b[j - 2], y):
                best = min(best, rows[i - 2][j - 2] + 1)
            rows[i].append(best)
    return rows[-1][-1] == 1


def is_misspelling(given: str, ours: str) -> bool:
    a, b = ("".join(character for character in key.lower() if character not in "_-. ") for key in (given, ours))
    first, _, others = ours.partition("_")
    is_in_first_word = not others or a[: len(first)] != first
    return a == b or (len(b) >= 6 and a[:1] == b[:1] and a[-1:] == b[-1:] and is_in_first_word and is_one_edit(a, b))


def edited(rng: Random, key: str) -> str:
    """The key after one to three random edits."""
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(key) + 1)
        new = rng.choice("abdeioptuxy_- .AIP2é")
        key = rng.choice(
            [
                key[:at] + new + key[at:],
                key[:at] + new + key[at + 1 :],
                key[:at] + key[at + 1 :],
                key[:at] + key[at + 1 : at + 2] + key[at : at + 1] + key[at + 2 :],
                key[:at] + key[at:].upper(),
            ]
        )
    return key


@pytest.mark.parametrize("level", ["params", "bet"])
async def test_exactly_the_misspellings_are_refused_of_any_edits_of_our_keys(harness: Harness, level: str) -> None:
    keys = list(MISSPELT) if level == "params" else list(MISSPELT_IN_BET)
    rng = Random(17)
    given = sorted({edited(rng, rng.choice(keys)) for _ in range(6_000)} - set(keys))
    rows = await harness.owner.fetch(
        """
        select key, predictu_dispatch.wrong_params('BET_MAKE', with_key, true) as refusal
          from unnest($1::text[]) as key, jsonb_build_object(key, 1) as one, cast($3::text as jsonb) as params,
               lateral (select case $2 when 'params' then params || one
                                       else jsonb_set(params, '{bet}', params -> 'bet' || one) end) as _ (with_key)
        """,
        *(given, level, json.dumps(placement_params("b1"))),
    )
    expected = {key for key in given if any(is_misspelling(key, ours) for ours in keys)}
    assert {row["key"] for row in rows if row["refusal"] is not None} == expected
    assert 500 < len(expected) < len(given) - 500, "both kinds are drawn"
