"""Scenarios about the body: what a correct parser reads, and the digest is made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from predictu_dispatch.certification.balance_expectations import BalanceInAnswer, Moved
from predictu_dispatch.certification.expectations import confirmed
from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.scenarios.sends import BET, STAKE, debit, refund
from predictu_dispatch.certification.steps import AFTER, Read, Send
from predictu_dispatch.core.methods import Method

_LARGE_CHARS: Final = 60_000
_DEBITED: Final = "debited"
_DAY_S: Final = 24 * 60 * 60
_DECIMALS: Final = (10, 20, 70, 29, 57, 115)
"""As decimals 0.10, 0.20, 0.70, 0.29, 0.57, 1.15: binary floating point has none of them."""


_LONG: Final = "long-" * 28
_LABELS: Final = (f"{_LONG}a", f"{_LONG}b", "Case", "case")
"""Ids of 180 characters that differ in the last one, and ids that differ by case only."""
_AMOUNTS: Final = (10, 20, 40, 80)
_BOOKED: Final = "booked"


def _pair(*, further: tuple[tuple[str, str], ...] = (), is_reordered: bool = False) -> tuple[Send | Read, ...]:
    """Return a debit and its refund with these further params."""
    debiting, refunding = (
        Send(name=name, method=method, bet=BET, amount=STAKE, further=further, is_reordered=is_reordered)
        for name, method in (("debit", Method.BET_MAKE), ("refund", Method.BET_REFUND))
    )
    return debiting, Read(name=_DEBITED), refunding


_PAIR_BOOKED: Final = (
    confirmed("debit", "refund"),
    Moved(by=-STAKE, until=_DEBITED),
    Moved(by=STAKE, since=_DEBITED),
)
"""What each pair is expected to do."""


def _decimal_debits() -> tuple[Send, ...]:
    return tuple(debit(f"debit-of-{amount}", bet=f"bet-{amount}", amount=amount) for amount in _DECIMALS)


def _id_pair(kind: str, send: Callable[..., Send]) -> tuple[Send, ...]:
    """Return one request for each of the bets whose ids are nearly equal."""
    return tuple(
        send(f"{kind}-{number}", bet=label, amount=amount)
        for number, (label, amount) in enumerate(zip(_LABELS, _AMOUNTS, strict=True), start=1)
    )


SCENARIOS: Final = (
    Scenario(
        id="envelope-unknown-param",
        group=Group.ENVELOPE,
        title="Unknown params are ignored",
        why="Predictu adds params without notice. If they are refused, every bet of 5.00 EUR is refused from that day.",
        steps=_pair(
            further=(
                ("channel", '"web"'),
                ("is_live", "true"),
                ("campaign", "null"),
                ("device", '{"os":"ios","tags":["a","b",{"deep":[1,2.5,[]]}]}'),
            )
        ),
        expectations=_PAIR_BOOKED,
        fix="Read the params that you know, and ignore every other one.",
    ),
    Scenario(
        id="envelope-unicode",
        group=Group.ENVELOPE,
        title="Any Unicode text is accepted",
        why="A market's title may be in any script. If you change its bytes before you compute the digest, the bet of"
        " 5.00 EUR is refused.",
        steps=_pair(
            further=(
                ("market_title", '"Zoë Müller 李雷 😀 e\u0301te\u0301 \u05e9\u05dc\u05d5\u05dd مرحبا"'),
                ("escaped", r'"\u00e9\ud83d\ude00 \"quoted\" \\ \/ \n\t\u0001"'),
                ("größe", '"L"'),
            )
        ),
        expectations=_PAIR_BOOKED,
        fix="Hash the bytes as they arrived, before anything decodes, normalises or rewrites them.",
    ),
    Scenario(
        id="envelope-large-number",
        group=Group.ENVELOPE,
        title="Large and long numbers are accepted",
        why="Floating point cannot hold 9007199254740993 exactly. If you parse the body and write it again for the"
        " digest, the bet of 5.00 EUR is refused.",
        steps=_pair(
            further=(
                ("sequence", "9007199254740993"),
                ("total", "123456789012345678901234567890"),
                ("ratio", "0.100000000000000005551115123126"),
                ("price", "1.10"),
            )
        ),
        expectations=_PAIR_BOOKED,
        fix="Hash the bytes as they arrived, and let the parser read numbers that you do not use.",
    ),
    Scenario(
        id="envelope-key-order",
        group=Group.ENVELOPE,
        title="The order of the params does not matter",
        why="The params may come in any order. If you expect a fixed one, you do not find the amount of a debit of 5.00"
        " EUR, or you take another number for it.",
        steps=_pair(is_reordered=True),
        expectations=_PAIR_BOOKED,
        fix="Parse the body with a JSON parser, and read the params by name.",
    ),
    Scenario(
        id="envelope-large-body",
        group=Group.ENVELOPE,
        title="A body of 60 kB is accepted",
        why="The params may have 64 KiB. If your server's limit is lower, it refuses a few bets of 5.00 EUR, and no"
        " test with small bodies shows it.",
        steps=_pair(further=(("notes", '"' + "0123456789" * (_LARGE_CHARS // 10) + '"'),)),
        expectations=_PAIR_BOOKED,
        fix="Allow bodies of 256 KiB in the server and in every proxy before it.",
    ),
    Scenario(
        id="envelope-old-timestamp",
        group=Group.ENVELOPE,
        title="A callback that waited for a day is accepted",
        why="After an outage of yours, a win may arrive with yesterday's timestamp and a new token. If you refuse it as"
        " too old, you refuse every repetition too, and the player never gets 5.00 EUR.",
        steps=(debit(), Send(name="win", method=Method.BET_WIN, bet=BET, amount=STAKE, age_s=_DAY_S)),
        expectations=(confirmed("debit", "win"), Moved(by=0)),
        fix="Check iat and exp of the token. The body's timestamp says when the callback was created; do not limit its"
        " age.",
    ),
    Scenario(
        id="envelope-ids",
        group=Group.ENVELOPE,
        title="Bets whose ids are nearly equal are two bets",
        why="An id may have 200 characters, and case counts. If a column cuts ids off or ignores case, two bets are"
        " one: the second debit of 5.00 EUR is refused, or it is confirmed and not taken.",
        steps=(*_id_pair("debit", debit), Read(name=_BOOKED), *_id_pair("refund", refund)),
        expectations=(
            confirmed(*(f"{kind}-{number}" for kind in ("debit", "refund") for number in range(1, len(_LABELS) + 1))),
            Moved(by=-sum(_AMOUNTS), until=_BOOKED),
            Moved(by=0),
        ),
        fix="Store ids as text of 200 characters or more, and compare them byte by byte.",
    ),
    Scenario(
        id="envelope-decimal-digits",
        group=Group.ENVELOPE,
        title="Decimal amounts are exact",
        why="0.10 + 0.20 as floating point is 0.30000000000000004. If one bet in a thousand is rounded wrongly, a"
        " million bets are off by 10.00 EUR, and no report adds up.",
        steps=_decimal_debits(),
        expectations=(
            confirmed(*(send.name for send in _decimal_debits())),
            Moved(by=-sum(_DECIMALS)),
            BalanceInAnswer(of=_decimal_debits()[-1].name, reading=AFTER),
        ),
        fix="Parse amounts as decimals, store whole subunits, and answer balances with exactly the currency's digits.",
        needs=frozenset({Need.DECIMAL}),
    ),
)
