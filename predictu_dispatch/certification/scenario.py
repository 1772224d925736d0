"""The model of a scenario: steps that are sent, and expectations that judge what was observed.

A scenario is data. The runner plays its steps, reads the balances of its players before the first
step and after the last one, and gives the expectations what it observed. Expectations are pure. The
digest of all scenarios, which a certificate names, is made from this data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import Field, dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, Protocol

from predictu_dispatch.certification.observation import Observed
from predictu_dispatch.certification.steps import Step


class Group(StrEnum):
    """The groups of scenarios, in the order of the reports."""

    CONNECTION = "connection"
    SIGNATURE = "signature"
    ENVELOPE = "envelope"
    MONEY = "money"
    REPETITION = "repetition"
    ORDER = "order"
    RECOVERY = "recovery"
    LOAD = "load"
    LEDGER = "ledger"


class ScenarioVerdict(StrEnum):
    """The verdict on one scenario, the best first."""

    PASSED = "PASSED"
    SKIPPED = "SKIPPED"
    WARNING = "WARNING"
    REVIEW = "REVIEW"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What an expectation found: FAILED, REVIEW or WARNING, and what was expected and observed."""

    verdict: ScenarioVerdict
    expected: str
    observed: str
    """One sentence, with money such as `12.50 EUR`."""
    advice: str = ""
    """What to do at the operator's side; "" if `expected` says it."""
    about: tuple[str, ...] = ()
    """The names of the requests that show it."""
    is_obstacle: bool = False
    """It kept the scenario from being played, so the scenario's own cost and fix do not apply."""


class Expectation(Protocol):
    """One part of a scenario's judgement; a frozen dataclass, so that the digest covers it."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def text(self) -> str:
        """What is expected, as one sentence."""
        ...

    def findings(self, seen: Observed) -> Iterable[Finding]:
        """Return what contradicts the expectation; nothing if it holds."""
        ...


class Need(StrEnum):
    """What a scenario needs; without it, it is skipped and the reason is in the report."""

    TLS = "tls"
    """An https:// URL."""
    TWO_PLAYERS = "two_players"
    NEXT_KEY = "next_key"
    """A second key beside the sandbox's key, named as `keys stage` names it."""
    DECIMAL = "decimal"
    """amount_format = "decimal"."""
    LEDGER = "ledger"
    """A ledger's URL."""


NEED_TEXTS: Final[dict[Need, str]] = {
    Need.TLS: "the sandbox's URL is http://; production needs https://",
    Need.TWO_PLAYERS: "one player is given; give a second one",
    Need.NEXT_KEY: "there is no next key beside the sandbox's key, such as sandbox.next.pem beside sandbox.pem",
    Need.DECIMAL: 'amount_format is "subunits"',
    Need.LEDGER: "no ledger is given; to check it, add --ledger URL",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario. `id` is permanent: reports, expected failures and repeat lines name it."""

    id: str
    """The group, a hyphen and words, such as `repetition-at-once`."""
    group: Group
    title: str
    why: str
    """What the fault costs, in money, as one or two sentences."""
    steps: tuple[Step, ...]
    expectations: tuple[Expectation, ...]
    fix: str = ""
    """What the operator's engineer should do if it fails, in one or two sentences."""
    needs: frozenset[Need] = frozenset()
    players: tuple[int, ...] = (0,)
    """The players whose balances are read."""
