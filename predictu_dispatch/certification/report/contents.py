"""What all three reports show: the run with the lines to repeat it, and bytes made readable."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from predictu_dispatch.certification.observation import Outcome, Sent, money
from predictu_dispatch.certification.result import RunResult, ScenarioResult
from predictu_dispatch.certification.run_verdict import ExpectedFailure, is_expected

BYTES_SHOWN_MAX: Final = 4096
"""A longer body is shortened to this; its length and SHA-256 stay."""
EXAMPLES_MAX: Final = 5
"""How many requests of a batch are shown."""
_TOKEN: Final = re.compile(rb"(eyJ[\w-]+\.eyJ[\w-]+\.)([\w-]+)")
"""A signed JWT: header and claims are JSON objects, so that both begin with {" in base64url."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run and what its reports say about it."""

    result: RunResult
    made_by: str
    """The program and its version."""
    repeat_line: Callable[[str], str]
    """Returns the shell line that plays a scenario again."""
    clean_line: str = ""
    """The shell line that continues the reversal of this run."""
    expected: Sequence[ExpectedFailure] = ()
    notes: Sequence[str] = ()
    """Sentences about how the run was made."""

    def known(self, result: ScenarioResult) -> ExpectedFailure | None:
        """Return the expected failure that covers this scenario's verdict."""
        if not is_expected(result, self.expected):
            return None
        return next(known for known in self.expected if known.scenario == result.scenario.id)

    def problem(self, result: ScenarioResult) -> str:
        """Return what is wrong with the scenario's expected failure; "" if nothing."""
        problems = (known.problem for known in self.expected if known.scenario == result.scenario.id)
        return next((problem for problem in problems if problem), "")

    def money(self, subunits: int | None) -> str:
        """Return `12.50 EUR`."""
        return "unknown" if subunits is None else money(subunits, self.result.currency, self.result.digits)

    def change(self, subunits: int) -> str:
        """Return `+12.50 EUR`, `-12.50 EUR` or `no change`."""
        return f"{'+' if subunits > 0 else ''}{self.money(subunits)}" if subunits else "no change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Octets:
    """A body as it is shown: as text if all of it is UTF-8, else in base64."""

    length: int
    sha256: str
    text: str | None
    base64: str | None
    is_shortened: bool


def octets(body: bytes) -> Octets:
    """Return the body to show; the signature of a token in it is replaced by asterisks."""
    body = without_signatures(body)
    try:
        body.decode()
        is_text = True
    except UnicodeDecodeError:
        is_text = False
    shown = body[:BYTES_SHOWN_MAX]
    return Octets(
        length=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        # A character that the limit cuts is left out.
        text=shown.decode(errors="ignore") if is_text else None,
        base64=None if is_text else base64.b64encode(shown).decode(),
        is_shortened=len(body) > BYTES_SHOWN_MAX,
    )


def without_signatures(octets: bytes) -> bytes:
    """Replace the signature of every token by asterisks.

    The sender replaces that of the request's own token, wherever an operator quotes it. This
    catches others: an operator may quote the token of an earlier request.
    """
    return _TOKEN.sub(lambda found: found[1] + b"*" * len(found[2]), octets)


def plain(text: str) -> str:
    """Return text from outside without the signature of a token."""
    return without_signatures(text.encode(errors="surrogatepass")).decode(errors="surrogatepass")


def rfc3339(at: datetime) -> str:
    """Return `2026-11-28T10:00:05.123Z`."""
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSummary:
    """A batch's requests in figures, and examples: first those that findings name."""

    count: int
    amount: int
    """The sum, in subunits."""
    outcomes: dict[Outcome, int]
    """The most frequent first."""
    slowest_ms: float
    examples: tuple[Sent, ...]


def summary_of(batch: Sequence[Sent], about: Sequence[str]) -> BatchSummary:
    """Sum up a batch. `about` are the names of requests in findings."""
    outcomes = Counter(each.outcome for each in batch)
    usual = outcomes.most_common(1)[0][0] if outcomes else None
    ranked = sorted(batch, key=lambda each: (each.name not in about, each.outcome is usual))
    return BatchSummary(
        count=len(batch),
        amount=sum(each.amount or 0 for each in batch),
        outcomes=dict(outcomes.most_common()),
        slowest_ms=max((each.exchange.total_ms for each in batch), default=0.0),
        examples=tuple(ranked[:EXAMPLES_MAX]),
    )
