"""What scenarios expect of the connection: TLS, redirects, kept connections and answer times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from predictu_dispatch.certification.expectations import listed, sent_as
from predictu_dispatch.certification.observation import Observed, Outcome, Sent
from predictu_dispatch.certification.scenario import Finding, ScenarioVerdict
from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.core.methods import RULES, Lane

_GOOD_VERSIONS: Final = frozenset({"TLSv1.2", "TLSv1.3"})
_DAYS_MIN: Final = 30
"""A certificate that ends sooner is worth a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodTls:
    """The handshake succeeds with TLS 1.2 or newer, and the certificate lasts for a while."""

    ping: str
    """The name of a request of the scenario; the certificate's time is compared with it."""

    @property
    def text(self) -> str:
        return (
            "The certificate is valid for the host and issued by a known authority, it lasts"
            f" {_DAYS_MIN} days or more, and the protocol is TLS 1.2 or newer."
        )

    def findings(self, seen: Observed) -> Iterator[Finding]:
        facts = seen.tls
        if facts is None or facts.fault:
            yield self._finding(
                ScenarioVerdict.FAILED, f"The handshake failed: {facts.fault if facts else 'not made'}."
            )
            return
        if facts.version not in _GOOD_VERSIONS:
            yield self._finding(ScenarioVerdict.FAILED, f"The protocol is {facts.version or 'unknown'}.")
        now = next((sent.started_at for sent in sent_as(seen, (self.ping,))), None)
        ends_at = facts.certificate_ends_at
        if now is not None and ends_at is not None and ends_at - now < timedelta(days=_DAYS_MIN):
            yield self._finding(ScenarioVerdict.WARNING, f"The certificate ends at {ends_at:%Y-%m-%dT%H:%M:%SZ}.")

    def _finding(self, verdict: ScenarioVerdict, observed: str) -> Finding:
        return Finding(verdict=verdict, expected=self.text, observed=observed)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRedirected:
    """No answer is a redirect."""

    of: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{listed(self.of)}: the answer is not a redirect."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        for sent in sent_as(seen, self.of):
            if sent.outcome is Outcome.REDIRECTED:
                location = next((value for name, value in sent.exchange.headers if name.lower() == "location"), "")
                yield Finding(
                    verdict=ScenarioVerdict.FAILED,
                    expected=self.text,
                    observed=f"{sent.name}: HTTP {sent.exchange.status} to {location or 'no address'}.",
                    advice="Give Predictu the final URL." if location else "",
                    about=(sent.name,),
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionKept:
    """One of the named requests is sent on a connection that carried an earlier one."""

    of: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{listed(self.of)}: the connection of the request before it is used again."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        sends = [sent for sent in sent_as(seen, self.of) if sent.exchange.evidence is not Evidence.NOT_SENT]
        if sends and not any(sent.is_on_used_connection for sent in sends):
            yield Finding(
                verdict=ScenarioVerdict.WARNING,
                expected=self.text,
                observed="Every request needed a new connection.",
                about=self.of,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerTime:
    """The slowest answer takes at most half of its lane's timeout."""

    of: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{listed(self.of)}: each answer takes at most half of the timeout."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        shares = [
            (self._share(seen, sent), sent)
            for sent in sent_as(seen, self.of)
            if sent.exchange.evidence is not Evidence.NOT_SENT
        ]
        if not shares:
            return
        share, slowest = max(shares, key=lambda pair: pair[0])
        if share > 0.5:  # noqa: PLR2004 - half of the timeout
            yield Finding(
                verdict=ScenarioVerdict.FAILED if share >= 1 else ScenarioVerdict.WARNING,
                expected=self.text,
                observed=f"{slowest.name} took {slowest.exchange.total_ms / 1000:.2f} s;"
                f" the timeout is {_timeout_s(seen, slowest):g} s.",
                about=(slowest.name,),
            )

    def _share(self, seen: Observed, sent: Sent) -> float:
        return sent.exchange.total_ms / 1000 / _timeout_s(seen, sent)


def _timeout_s(seen: Observed, sent: Sent) -> float:
    is_settlement = RULES[sent.method].lane is Lane.SETTLEMENT
    return seen.settlement_timeout_s if is_settlement else seen.interactive_timeout_s
