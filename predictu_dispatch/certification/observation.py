"""What the runner observed in one scenario: the only input of its expectations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from predictu_dispatch.certification.steps import Delivery, TokenFault
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import MISCONFIGURED, UNKNOWN_STATUS, Judgement, Verdict

NOTHING_TO_REVERSE = "nothing_to_reverse"
_UNAUTHORIZED_CODES = frozenset({401, 403})


class Outcome(StrEnum):
    """What an answer means, as production's judge reads it."""

    CONFIRMED = "confirmed"
    """A success: the operator says that the request is booked."""
    NOTHING_TO_REVERSE = "nothing_to_reverse"
    """A success of a rollback that moved nothing."""
    REFUSED = "refused"
    """A business rejection with a built-in or declared status."""
    UNDECLARED = "undeclared"
    """A status that nobody declared."""
    UNAUTHORIZED = "unauthorized"
    """401 or 403."""
    REDIRECTED = "redirected"
    MISCONFIGURED = "misconfigured"
    """404 without a status, 405, 410."""
    TRY_AGAIN = "try_again"
    """429, 503, 5xx, a declared retry status, or no JSON with a status."""
    NO_ANSWER = "no_answer"
    """Sent, but no complete answer."""
    NOT_SENT = "not_sent"
    """Nothing was sent: name, connection or TLS failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request and what came of it. Money is in subunits."""

    name: str
    method: Method
    request_id: str
    bet_id: str
    player_id: str
    amount: int | None
    body: bytes
    header: Mapping[str, object]
    """The token's header; empty without a token."""
    claims: Mapping[str, object]
    token: TokenFault
    delivery: Delivery
    started_at: datetime
    exchange: Exchange
    judgement: Judgement
    is_on_used_connection: bool = False
    """The request was sent on a connection that had carried an earlier one."""

    @property
    def outcome(self) -> Outcome:
        return outcome_of(self.exchange, self.judgement)

    @property
    def transaction_id(self) -> str | None:
        return self.judgement.operator_transaction_id

    @property
    def balance(self) -> int | None:
        return self.judgement.balance


def outcome_of(exchange: Exchange, judgement: Judgement) -> Outcome:
    """Return what production would make of this exchange."""
    if exchange.evidence is Evidence.NOT_SENT:
        return Outcome.NOT_SENT
    if exchange.evidence is Evidence.UNANSWERED or exchange.status is None:
        return Outcome.NO_ANSWER
    if judgement.verdict is Verdict.DELIVERED:
        is_nothing = judgement.reason == NOTHING_TO_REVERSE
        return Outcome.NOTHING_TO_REVERSE if is_nothing else Outcome.CONFIRMED
    if judgement.reason == UNKNOWN_STATUS:
        return Outcome.UNDECLARED
    if judgement.verdict is Verdict.REJECTED:
        return Outcome.REFUSED
    if judgement.reason == MISCONFIGURED:
        if exchange.status in _UNAUTHORIZED_CODES:
            return Outcome.UNAUTHORIZED
        return Outcome.REDIRECTED if 300 <= exchange.status < 400 else Outcome.MISCONFIGURED  # noqa: PLR2004 - a class
    return Outcome.TRY_AGAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFacts:
    """What one TLS handshake showed; `fault` is why it failed, else ""."""

    version: str = ""
    """Such as TLSv1.3."""
    certificate_ends_at: datetime | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One booking in the operator's ledger; `amount` is its effect on the player, in subunits."""

    request_id: str
    transaction_id: str
    method: str
    bet_id: str
    player_id: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The operator's ledger of this run; `fault` is why it could not be read, else ""."""

    rows: tuple[LedgerRow, ...] = ()
    fault: str = ""


@dataclass(kw_only=True)
class Observed:
    """All that was observed in one scenario, filled by the runner while it plays."""

    run: str
    currency: str
    digits: int
    """The currency's minor digits, to print money."""
    player_ids: tuple[str, ...]
    interactive_timeout_s: float
    settlement_timeout_s: float
    sent: dict[str, Sent] = field(default_factory=dict)
    """By the name of the step."""
    batches: dict[str, tuple[Sent, ...]] = field(default_factory=dict)
    balances: dict[str, dict[int, int | None]] = field(default_factory=dict)
    """By the name of the reading and the player's index; None: could not be read."""
    balance_reads: list[Sent] = field(default_factory=list)
    put_off: list[Sent] = field(default_factory=list)
    """Answers with 429 or 503 after which the request was sent again, with the request's name."""
    tls: TlsFacts | None = None
    ledger: Ledger | None = None
    confirmed_in_run: tuple[Sent, ...] = ()
    """Every confirmed request of the run so far that books something; for the ledger."""

    def money(self, subunits: int) -> str:
        """Return `12.50 EUR`."""
        return money(subunits, self.currency, self.digits)


def money(subunits: int, currency: str, digits: int) -> str:
    """Return `12.50 EUR`."""
    sign, whole = ("-" if subunits < 0 else ""), str(abs(subunits)).rjust(digits + 1, "0")
    number = f"{whole[:-digits]}.{whole[-digits:]}" if digits else whole
    return f"{sign}{number} {currency}"
