"""The steps of a scenario: what is sent, read and waited for. Amounts are in subunits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from predictu_dispatch.core.methods import Method

BEFORE = "before"
"""The name of the balances that are read before a scenario's first step."""
AFTER = "after"
"""The name of the balances that are read after a scenario's last step."""
RESUMED = "resumed"
"""The name of the balances that are read after a Pause, in which other scenarios are played."""


class TokenFault(StrEnum):
    """What is wrong with a request's token; the operator must refuse all but the first three."""

    NONE = "none"
    NEXT_KEY = "next_key"
    """Signed with the staged key, as during a rotation. No fault."""
    USED_JTI = "used_jti"
    """The `jti` of an earlier token, with a new `iat`. No fault: a retry may have it."""
    MISSING = "missing"
    """No Authorization header."""
    WRONG_KEY = "wrong_key"
    """Signed with a key that the operator does not know, under the `kid` of the right one."""
    UNKNOWN_KID = "unknown_kid"
    """Signed with a key that the operator does not know, under its `kid`, with its public half."""
    OTHER_SUB = "other_sub"
    OTHER_METHOD = "other_method"
    OTHER_REQUEST_ID = "other_request_id"
    """The `jti` of another request."""
    EXPIRED = "expired"
    """`iat` and `exp` are ten minutes in the past."""
    FROM_THE_FUTURE = "from_the_future"
    """`iat` and `exp` are ten minutes in the future."""
    ALG_NONE = "alg_none"
    HS256_PUBLIC_KEY = "hs256_public_key"
    """An HMAC whose secret is the public key (PEM)."""
    OTHER_BODY = "other_body"
    """The token is for a body with a smaller amount: the body was changed on the way."""


class Delivery(StrEnum):
    """How a request is sent and its answer is read."""

    COMPLETE = "complete"
    CUT_AFTER_BODY = "cut_after_body"
    """The whole request is sent. After `READ_S`, in which the operator's process reads it, the
    connection is reset."""
    CUT_AT_ONCE = "cut_at_once"
    """The connection is reset as soon as the operator's host has the whole request: its process may
    have begun, or never read it."""
    CUT_INSIDE_BODY = "cut_inside_body"
    """Half of the body is sent, then the connection is reset."""
    NEVER_READ = "never_read"
    """The whole request is sent and the answer is not read; closed after `NEVER_READ_S`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AboveBalance:
    """An amount relative to the player's balance of that moment, as the newest reading says.

    `by` is what it is above the balance; a negative one is below it.
    """

    by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One request with a body of its own.

    `name` is unique in its scenario; the request_id follows from run, scenario and name. `bet` is
    the label of a bet; its bet_id follows from run, scenario and label. `amount` is in subunits.
    """

    name: str
    method: Method
    bet: str = ""
    player: int = 0
    """The index of the player; 0 or 1."""
    is_unknown_player: bool = False
    """The player_id is one that the operator cannot know."""
    amount: int | AboveBalance | None = None
    currency: str = ""
    """A currency other than the run's; "" for the run's."""
    rollback_of: str = ""
    """The name of the placement whose request_id a BET_ROLLBACK names; sent later or never."""
    request_id_of: str = ""
    """The name of an earlier request whose request_id is used again, with another body."""
    further: tuple[tuple[str, str], ...] = ()
    """Further members of `params`: name and JSON text, as they are, after the known ones."""
    age_s: int = 0
    """The body's timestamp is that many seconds old, as that of a callback that had to wait."""
    is_reordered: bool = False
    """The members of `params` are in reverse order."""
    token: TokenFault = TokenFault.NONE
    delivery: Delivery = Delivery.COMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The request `of` once more: the same request_id and the same bytes, with a new token."""

    name: str
    of: str
    token: TokenFault = TokenFault.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class AtOnce:
    """Requests that are sent at the same moment, each on a connection of its own."""

    sends: tuple[Send | Again, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Many requests, `in_flight` at a time: one for each of the bets `b-1` to `b-COUNT`.

    The bets alternate between the scenario's players. A batch of another method than BET_MAKE ends
    the bets of the BET_MAKE batch in the same scenario. `methods` are used in turn, with
    `amounts`.
    """

    name: str
    methods: tuple[Method, ...]
    amounts: tuple[int, ...]
    """For each of `methods`; 0 for BET_LOSE."""
    count: int
    in_flight: int
    again: str = ""
    """The name of an earlier batch: its requests are repeated, the same bytes with new tokens."""
    delivery: Delivery = Delivery.COMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Reads the balances of the scenario's players under this name, each by a BALANCE request."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Waits while other scenarios are played, then reads the balances as `RESUMED`."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """Opens one TLS connection and observes protocol version and certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLedger:
    """Fetches the operator's ledger of this run."""


Step = Send | Again | AtOnce | Batch | Read | Pause | Handshake | ReadLedger
