"""Scenarios about the token: what must be accepted, and what must be refused without a booking."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from predictu_dispatch.certification.balance_expectations import Moved
from predictu_dispatch.certification.expectations import confirmed, rolled_back, unauthorized
from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.scenarios.sends import STAKE, debit, loss, refund, rollback, sale, win
from predictu_dispatch.certification.steps import Again, Read, Send, TokenFault
from predictu_dispatch.core.methods import Method

_REFUSED = "refused"
_BOOKED: Final = "booked"
_SMALL: Final = 100
_ENDS: Final = (
    win(bet="win", amount=150),
    sale(bet="sale", amount=50),
    loss(bet="loss"),
    refund(bet="refund", amount=_SMALL),
    rollback(bet="rollback", of="rollback-debit", amount=_SMALL),
)
_REMEMBERED: Final = (
    " Do not store the answer to an unverified request: the same request_id with a good token must be booked."
)


def _hostile(scenario_id: str, title: str, why: str, token: TokenFault, fix: str) -> Scenario:
    """Return a debit with a faulty token, and the same debit with a good one."""
    return Scenario(
        id=scenario_id,
        group=Group.SIGNATURE,
        title=title,
        why=why,
        steps=(debit(token=token), Read(name=_REFUSED), Again(name="debit-with-good-token", of="debit")),
        expectations=(
            unauthorized("debit"),
            Moved(by=0, until=_REFUSED),
            confirmed("debit-with-good-token"),
            Moved(by=-STAKE),
        ),
        fix=fix + _REMEMBERED,
    )


SCENARIOS: Final = (
    Scenario(
        id="signature-good",
        group=Group.SIGNATURE,
        title="A good token is accepted",
        why="A debit that is refused although its token is good is a lost bet of 5.00 EUR.",
        steps=(debit(),),
        expectations=(confirmed("debit"), Moved(by=-STAKE)),
        fix="Verify the token with the key of its kid, over the bytes as they arrived. vectors.json shows each rule.",
    ),
    _hostile(
        "signature-missing",
        "Without a token nothing is booked",
        "Anybody who finds the URL can credit an account: one forged win costs you 10,000.00 EUR.",
        TokenFault.MISSING,
        "Refuse a request without an Authorization header with 401, before you read its body.",
    ),
    _hostile(
        "signature-wrong-key",
        "A signature by another key is refused",
        "If signatures are not verified, anybody can forge a win of 10,000.00 EUR.",
        TokenFault.WRONG_KEY,
        "Verify the signature, and book only afterwards.",
    ),
    _hostile(
        "signature-unknown-kid",
        "An unknown kid is refused",
        "If an unknown kid is trusted, or the key is taken from the token, which has one here, anybody can forge a win"
        " of 10,000.00 EUR.",
        TokenFault.UNKNOWN_KID,
        "Look the kid up in your list of Predictu's keys, and refuse every other one. Take no key from the token.",
    ),
    _hostile(
        "signature-tampered-body",
        "A changed body is refused",
        "The token here is for half of the amount. If you do not check the digest, an attacker in the network can turn"
        " a win of 5.00 EUR into one of 5,000.00 EUR.",
        TokenFault.OTHER_BODY,
        "Compare the digest claim with the SHA-256 of the bytes that arrived.",
    ),
    _hostile(
        "signature-other-operator",
        "A token for another operator is refused",
        "A callback for another operator can be replayed to you: you pay its player's win of 100.00 EUR.",
        TokenFault.OTHER_SUB,
        "Compare the sub claim with your operator id.",
    ),
    _hostile(
        "signature-other-method",
        "A token for another method is refused",
        "The method claim is a second check beside the digest. If you check neither, a loss can be turned into a win of"
        " 100.00 EUR.",
        TokenFault.OTHER_METHOD,
        "Compare the method claim with the body's method.",
    ),
    _hostile(
        "signature-other-request-id",
        "A token for another request is refused",
        "The jti claim binds the token to one request. If you check neither it nor the digest, the token of one win of"
        " 100.00 EUR can be used for many.",
        TokenFault.OTHER_REQUEST_ID,
        "Compare the jti claim, up to a colon, with the body's request_id.",
    ),
    _hostile(
        "signature-expired",
        "An expired token is refused",
        "A request that somebody finds in an old log can be sent again: if its answer is no longer stored, a win of"
        " 100.00 EUR is paid again.",
        TokenFault.EXPIRED,
        "Check exp, with at most a few seconds of leeway.",
    ),
    _hostile(
        "signature-from-the-future",
        "A token from the future is refused",
        "Anybody who has a leaked key can make tokens for later times, and forge a win of 10,000.00 EUR weeks after the"
        " leak.",
        TokenFault.FROM_THE_FUTURE,
        "Check iat, with at most a few seconds of leeway, and synchronise your clock with NTP.",
    ),
    _hostile(
        "signature-alg-none",
        "alg none is refused",
        "Anybody can write a token without a signature, and forge a win of 10,000.00 EUR.",
        TokenFault.ALG_NONE,
        "Accept only the agreed algorithm, whatever the token's header says.",
    ),
    _hostile(
        "signature-hs256",
        "HS256 with the public key as secret is refused",
        "The public key is no secret. Anybody who has it can sign a win of 10,000.00 EUR.",
        TokenFault.HS256_PUBLIC_KEY,
        "Accept only the agreed algorithm, and give your JWT library exactly that one.",
    ),
    Scenario(
        id="signature-checked-each-time",
        group=Group.SIGNATURE,
        title="A repetition needs a good token too",
        why="If a known request_id is answered without a check, anybody who knows it reads the player's balance, such"
        " as 1,250.00 EUR.",
        steps=(
            debit(),
            Again(name="again-without-token", of="debit", token=TokenFault.MISSING),
            Again(name="again-with-wrong-key", of="debit", token=TokenFault.WRONG_KEY),
        ),
        expectations=(
            confirmed("debit"),
            unauthorized("again-without-token", "again-with-wrong-key"),
            Moved(by=-STAKE),
        ),
        fix="Verify the token of every request before you look up its request_id.",
    ),
    Scenario(
        id="signature-every-method",
        group=Group.SIGNATURE,
        title="The token of every method is verified",
        why="Each method may have code of its own. If only that of BET_MAKE verifies the token, anybody can forge a win"
        " of 10,000.00 EUR.",
        steps=(
            *(debit(f"{end.bet}-debit", bet=end.bet, amount=_SMALL) for end in _ENDS),
            Read(name=_BOOKED),
            *(replace(end, token=TokenFault.WRONG_KEY) for end in _ENDS),
            Send(name="balance", method=Method.BALANCE, token=TokenFault.WRONG_KEY),
            Read(name=_REFUSED),
            *(Again(name=f"{end.name}-with-good-token", of=end.name) for end in _ENDS),
        ),
        expectations=(
            confirmed(*(f"{end.bet}-debit" for end in _ENDS)),
            unauthorized(*(end.name for end in _ENDS), "balance"),
            Moved(by=0, since=_BOOKED, until=_REFUSED),
            confirmed(*(f"{end.name}-with-good-token" for end in _ENDS[:-1])),
            rolled_back(f"{_ENDS[-1].name}-with-good-token"),
            Moved(by=150 + 50 + 2 * _SMALL, since=_REFUSED),
        ),
        fix="Verify the token before you look at the method." + _REMEMBERED,
    ),
    Scenario(
        id="signature-next-key",
        group=Group.SIGNATURE,
        title="Both keys are accepted during a rotation",
        why="While Predictu changes its key, tokens of the old and of the new key arrive. If you accept only one of"
        " them, debits of 5.00 EUR are refused, and their bets are lost.",
        steps=(
            debit(),
            Again(name="again-with-next-key", of="debit", token=TokenFault.NEXT_KEY),
            debit("debit-with-next-key", bet="second", token=TokenFault.NEXT_KEY),
            Again(name="again-with-present-key", of="debit-with-next-key"),
        ),
        expectations=(
            confirmed("debit", "again-with-next-key", "debit-with-next-key", "again-with-present-key"),
            Moved(by=-2 * STAKE),
        ),
        fix="Keep all of Predictu's keys by kid. Remove one only after Predictu asks you to.",
        needs=frozenset({Need.NEXT_KEY}),
    ),
    Scenario(
        id="signature-used-jti",
        group=Group.SIGNATURE,
        title="A jti that you have seen is not refused",
        why="A repeated debit may have the same jti. If it gets 401, Predictu cannot know that the first attempt took"
        " 5.00 EUR: the player has neither the money nor the bet until the rollback.",
        steps=(debit(), Again(name="debit-again", of="debit", token=TokenFault.USED_JTI)),
        expectations=(confirmed("debit", "debit-again"), Moved(by=-STAKE)),
        fix="Do not store jti. The request_id protects against replay: answer DUPLICATE and the first result.",
    ),
)
