"""A request of a run: its ids, its body and how it is sent.

Everything follows from run, scenario, names and the time of preparing, so that a request can be
repeated byte for byte. Bodies are written by core/callback.py, as production writes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from predictu_dispatch.certification.steps import Delivery, TokenFault
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core.callback import Callback, Effect, body
from predictu_dispatch.core.methods import RULES, Method

BET_ID_CHARS_MAX: Final = 200
"""The longest id of the protocol."""
_WAGER: Final = '{"odds":1.85,"price":54,"shares":10,"outcome":"yes","market_id":"cert-market-1"}'
"""The context of a placement; operators store it and do not compute with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One request, ready to be sent. The journal has it before a byte of it is sent."""

    scenario_id: str
    name: str
    """Unique in its scenario. Those of a batch are `NAME-1` to `NAME-COUNT`."""
    method: Method
    request_id: str
    number: int = 1
    """Counts the sendings of this request_id, from 1."""
    bet_id: str = ""
    player_id: str = ""
    amount: int | None = None
    """In subunits."""
    currency: str = ""
    rollback_of: str = ""
    """The request_id that a BET_ROLLBACK names."""
    created_at: datetime
    """The body's timestamp: that of the first sending."""
    body: bytes
    token_body: bytes = b""
    """The body that the token is for if it is another one, else b""."""
    token: TokenFault = TokenFault.NONE
    delivery: Delivery = Delivery.COMPLETE

    def as_json(self) -> dict[str, Any]:
        """Return the request as a JSON object, from which from_json() makes the same request."""
        return {
            "scenario": self.scenario_id,
            "name": self.name,
            "method": self.method.value,
            "request_id": self.request_id,
            "number": self.number,
            "bet_id": self.bet_id,
            "player_id": self.player_id,
            "amount": self.amount,
            "currency": self.currency,
            "rollback_of": self.rollback_of,
            "created_at": self.created_at.isoformat(),
            "body": self.body.decode(),
            "token_body": self.token_body.decode(),
            "token": self.token.value,
            "delivery": self.delivery.value,
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Prepared:
        """Read what as_json() has written. Raises KeyError or ValueError for anything else."""
        return cls(
            scenario_id=written["scenario"],
            name=written["name"],
            method=Method(written["method"]),
            request_id=written["request_id"],
            number=written["number"],
            bet_id=written["bet_id"],
            player_id=written["player_id"],
            amount=written["amount"],
            currency=written["currency"],
            rollback_of=written["rollback_of"],
            created_at=datetime.fromisoformat(written["created_at"]),
            body=written["body"].encode(),
            token_body=written["token_body"].encode(),
            token=TokenFault(written["token"]),
            delivery=Delivery(written["delivery"]),
        )


def request_id_of(run: str, scenario_id: str, name: str) -> UUID:
    """Return the request_id of the request of this name: always the same one.

    It has the form of a random UUID (version 4), as production's have: an operator may accept no
    other.
    """
    return UUID(bytes=hashlib.sha256(f"{run}/{scenario_id}/{name}".encode()).digest()[:16], version=4)


def bet_id_of(run: str, scenario_id: str, label: str) -> str:
    """Return the bet_id of the bet with this label. Raises ValueError if it is too long."""
    bet_id = f"cert-{run}-{scenario_id}-{label}"
    if len(bet_id) > BET_ID_CHARS_MAX:
        raise ValueError(f"{bet_id}: a bet_id of more than {BET_ID_CHARS_MAX} characters")
    return bet_id


def unknown_player_of(run: str) -> str:
    """Return the player_id that the operator cannot know."""
    return f"cert-{run}-unknown-player"


def build(
    *,
    run: str,
    scenario_id: str,
    name: str,
    method: Method,
    target: Target,
    now: datetime,
    player_id: str = "",
    bet_id: str = "",
    amount: int | None = None,
    currency: str = "",
    rollback_of: str = "",
    request_id: str = "",
    further: tuple[tuple[str, str], ...] = (),
    is_reordered: bool = False,
    token: TokenFault = TokenFault.NONE,
    delivery: Delivery = Delivery.COMPLETE,
) -> Prepared:
    """Return the first sending of a request; a request_id of "" is the name's own.

    A currency of "" is the run's. What the method's params do not have is left out. Raises
    ValueError if something is missing.
    """
    required = RULES[method].required
    given = {
        "player_id": player_id,
        "bet_id": bet_id,
        "amount": amount,
        "rollback_of": rollback_of,
        "currency": currency or target.currency,
        "bet": _WAGER,
    }
    if missing := [key for key in required if given[key] in ("", None)]:
        raise ValueError(f"{scenario_id}, {name}: {method} needs {', '.join(missing)}")
    request_id = request_id or str(request_id_of(run, scenario_id, name))
    known = {key: given[key] for key in required}

    def body_with(known: Mapping[str, object], created_at: datetime) -> bytes:
        params = _params(known, further, is_reordered=is_reordered)
        return body(callback_of(target, method, request_id=request_id, params=params, created_at=created_at))

    token_body = b""
    if token is TokenFault.OTHER_BODY:
        smaller = known | {"amount": (amount or 0) // 2} if "amount" in known else known
        token_body = body_with(smaller, now if "amount" in known else now - timedelta(seconds=1))
    return Prepared(
        scenario_id=scenario_id,
        name=name,
        method=method,
        request_id=request_id,
        bet_id=bet_id if "bet_id" in required else "",
        player_id=player_id if "player_id" in required else "",
        amount=amount if "amount" in required else None,
        currency=str(known.get("currency", "")),
        rollback_of=rollback_of if "rollback_of" in required else "",
        created_at=now,
        body=body_with(known, now),
        token_body=token_body,
        token=token,
        delivery=delivery,
    )


def callback_of(
    target: Target, method: Method, *, request_id: str, params: str = "{}", created_at: datetime
) -> Callback:
    """Return production's callback, which the body is written from and the answer judged for."""
    return Callback(
        operator_id=target.settings.operator_id,
        request_id=UUID(request_id),
        method=method,
        bet_id=None,
        lane=RULES[method].lane,
        attempt=1,
        budget_from=1,
        effect=Effect.NONE,
        reason=None,
        params=params,
        created_at=created_at,
        due_at=created_at,
        expires_in_s=None,
        leased_at=created_at,
        lease_s=0.0,
        amount_format=target.settings.amount_format,
        minor_digits=target.digits,
        placement_ended_s_ago=None,
        leased_at_s=0.0,
    )


def again(earlier: Prepared, *, name: str, number: int) -> Prepared:
    """Return the sending with this number of an earlier request: the same bytes, a good token."""
    return replace(
        earlier,
        name=name,
        number=number,
        token=TokenFault.NONE,
        token_body=b"",
        delivery=Delivery.COMPLETE,
    )


def _params(known: Mapping[str, object], further: tuple[tuple[str, str], ...], *, is_reordered: bool) -> str:
    """Return the params as JSON text, the known ones in the order of Postgres: short keys first."""
    members = [
        (key, str(known[key]) if key in ("amount", "bet") else json.dumps(known[key], ensure_ascii=False))
        for key in sorted(known, key=lambda key: (len(key), key))
    ]
    members += further
    if is_reordered:
        members.reverse()
    return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{text}" for key, text in members) + "}"
