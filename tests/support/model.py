"""The model of the operator: its wallet and a faulty network in front of it.

Both read only the bytes on the wire and know nothing of our tables.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import TERMINALS, Method
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.signing import SigningKey

SLOWEST_REQUEST_S = 30.0
"""The longest delay of a request. It is below `rollback.recheck_s`, after which a missing debit
counts as final."""


class RequestFault(StrEnum):
    """What the network and the operator do with one request."""

    ANSWERED = "applied and answered"
    ANSWER_LOST = "applied, its answer lost"
    FAILED_AFTER = "applied, then a 500"
    FAILED_BEFORE = "a 500, not applied"
    TOO_MANY = "a 429, not applied"
    UNAUTHORIZED = "a 401, not applied"
    REJECTED = "rejected for a business reason"
    REQUEST_LOST = "lost on its way"
    DELAYED = "timed out here, and it reaches the operator later"
    NOT_SENT = "no connection"


@dataclass(slots=True, kw_only=True)
class BookedBet:
    """A debit in the operator's wallet; `gained` is the player's gain or loss by the bet so far."""

    stake: int
    gained: int
    ended_by: str | None = None


@dataclass(slots=True, kw_only=True)
class Wallet:
    """One operator's wallet, idempotent by request_id.

    With tombstones it rejects a debit after its rollback.
    """

    keeps_tombstones: bool
    bets: dict[str, BookedBet] = field(default_factory=dict)
    applied: set[str] = field(default_factory=set)
    _tombstones: set[str] = field(default_factory=set)

    def gained(self, bet_id: str) -> int:
        """The player's gain by the bet in subunits; negative for a loss."""
        return self.bets[bet_id].gained if bet_id in self.bets else 0

    def take(self, envelope: Mapping[str, Any], *, rejects: bool = False) -> tuple[int, str]:
        """Books the request if allowed; returns the answer's HTTP status and `status`."""
        request_id, method, params = envelope["request_id"], Method(envelope["method"]), envelope["params"]
        if request_id in self.applied:
            return 409, "DUPLICATE_TRANSACTION"
        if rejects:
            return 402, "INSUFFICIENT_FUNDS"
        if method is Method.BET_MAKE:
            if request_id in self._tombstones or params["bet_id"] in self.bets:
                return 409, "BET_ROLLED_BACK"
            self.bets[params["bet_id"]] = BookedBet(stake=params["amount"], gained=-params["amount"])
        elif method is Method.BET_ROLLBACK and params["bet_id"] not in self.bets:
            if self.keeps_tombstones:
                self._tombstones.add(params["rollback_of"])
            return 404, "TRANSACTION_NOT_FOUND"
        elif method in TERMINALS:
            bet = self.bets.get(params["bet_id"])
            assert bet is not None, f"{method} reached the operator before its debit"
            assert bet.ended_by is None, f"{method} reached the operator after {bet.ended_by} had ended the bet"
            bet.ended_by = request_id
            bet.gained += params.get("amount", 0)
        self.applied.add(request_id)
        return 200, "OK"


@dataclass(slots=True, kw_only=True)
class Network:
    """Carries requests to the wallet with a fault, and checks each against earlier ones."""

    wallet: Wallet
    fault: RequestFault = RequestFault.ANSWERED
    # Body and age in seconds of delayed requests.
    delayed: list[tuple[bytes, float]] = field(default_factory=list)
    _bodies: dict[str, bytes] = field(default_factory=dict)
    _terminal_sent: dict[str, str] = field(default_factory=dict)

    def interrupt(self) -> None:
        """Does nothing: a post takes no time here."""

    async def connect(self, timeout_s: float) -> str | None:
        """Opens nothing, because a post needs no connection here."""
        return None if timeout_s > 0 else "connect_timeout"

    async def close(self) -> None:
        """Does nothing."""

    async def post(
        self,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        connect_timeout_s: float,
        send_before_s: float,
    ) -> Exchange:
        """The Transport of flow/ports.py, without a socket."""
        assert headers
        assert connect_timeout_s <= timeout_s
        if self.fault is RequestFault.NOT_SENT or time.monotonic() >= send_before_s:
            return Exchange(evidence=Evidence.NOT_SENT, reason="connect_refused", total_ms=0.0)
        envelope = json.loads(body)
        self._check_order(envelope, body)
        match self.fault:
            case RequestFault.ANSWERED | RequestFault.REJECTED:
                return _answered(*self.wallet.take(envelope, rejects=self.fault is RequestFault.REJECTED))
            case RequestFault.ANSWER_LOST | RequestFault.FAILED_AFTER:
                self.wallet.take(envelope)
            case RequestFault.DELAYED:
                self.delayed.append((body, 0.0))
            case _:
                pass
        match self.fault:
            case RequestFault.FAILED_AFTER | RequestFault.FAILED_BEFORE:
                return _answered(500, "OK")
            case RequestFault.TOO_MANY:
                return _answered(429, "SLOW_DOWN")
            case RequestFault.UNAUTHORIZED:
                return _answered(401, "REPLAYED")
            case _:
                return Exchange(evidence=Evidence.UNANSWERED, reason="timeout", total_ms=1.0)

    def deliver_delayed(self, index: int) -> None:
        """Delivers one delayed request to the operator; its answer is lost."""
        body, _ = self.delayed.pop(index % len(self.delayed))
        self.wallet.take(json.loads(body))

    def pass_time(self, seconds: float) -> None:
        """Ages the delayed requests and delivers those that reach the longest delay."""
        self.delayed = [(body, age_s + seconds) for body, age_s in self.delayed]
        while any(age_s >= SLOWEST_REQUEST_S for _, age_s in self.delayed):
            self.deliver_delayed(next(i for i, (_, age_s) in enumerate(self.delayed) if age_s >= SLOWEST_REQUEST_S))

    def carries(self, request_id: UUID) -> bool:
        """True while a delayed request with this id may still reach the operator."""
        return any(json.loads(body)["request_id"] == str(request_id) for body, _ in self.delayed)

    def _check_order(self, envelope: Mapping[str, Any], body: bytes) -> None:
        """Checks for the same bytes as before, and a legal order of debit and terminal."""
        request_id, method = envelope["request_id"], Method(envelope["method"])
        assert self._bodies.setdefault(request_id, body) == body, f"another attempt of {request_id} had other bytes"
        if method is Method.BET_MAKE:
            assert envelope["params"]["bet_id"] not in self._terminal_sent, "a debit was sent after its terminal"
        elif method in TERMINALS:
            bet_id = envelope["params"]["bet_id"]
            sent = self._terminal_sent.setdefault(bet_id, request_id)
            assert sent == request_id, f"two terminals were sent for bet {bet_id}"
            assert method is Method.BET_ROLLBACK or bet_id in self.wallet.bets, f"{method} was sent before its debit"


def _answered(http_status: int, status: str) -> Exchange:
    body = json.dumps({"status": status, "balance": 1_000, "transaction_id": "op-tx"}).encode()
    return Exchange(evidence=Evidence.ANSWERED, status=http_status, body=body, total_ms=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """An operator as flow/ports.py expects it."""

    settings: OperatorSettings
    signing_key: SigningKey
