"""Faults on request, so that the other side's recovery can be watched. They spoil answers and never touch the rules."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from .answer import Answer, Status
from .money import AmountFormat


class Fault(StrEnum):
    """What can be asked for, each with the share of callbacks that get it."""

    RESET = "reset"
    RESET_AFTER_APPLY = "reset_after_apply"
    ERROR_BEFORE_APPLY = "error_before_apply"
    ERROR_AFTER_APPLY = "error_after_apply"
    STALL_BEFORE_APPLY = "stall_before_apply"
    STALL_AFTER_APPLY = "stall_after_apply"
    UNAVAILABLE = "unavailable"
    NOT_JSON = "not_json"
    DUPLICATE = "duplicate"


NOT_PROCESSED = frozenset({Fault.RESET, Fault.ERROR_BEFORE_APPLY, Fault.UNAVAILABLE})
"""With these the callback never reaches the wallet; with all others it is applied as ever."""

_HTML = "<!doctype html><title>Wallet</title><p>Please sign in."
"""What a proxy or a login page in front of the wallet makes of an answer."""

_RATES_SUM_MAX = 1 + 1e-9
"""Rates like 0.1 are no exact binary numbers, and ten of them may still add up to all callbacks."""


class FaultError(ValueError):
    """Rates that can't be meant; the message names the value and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What goes out: `http_status` None means the connection is reset and nothing is said."""

    http_status: int | None
    body: str | None = None
    content_type: str = "application/json"
    retry_after_s: int | None = None


class FaultSource:
    """Draws one fault, or none, for each verified callback; the same seed and arrival order give the same faults."""

    def __init__(self, rates: Mapping[Fault, float], *, seed: int | None, stall_s: float) -> None:
        self.rates = dict(rates)
        self.stall_s = stall_s
        self._random = random.Random(seed)  # noqa: S311 # Reproducible faults, no secret.

    def change(self, rates: Mapping[Fault, float], *, seed: int | None, stall_s: float | None) -> None:
        """From the next callback on these rates hold, and no others; the draws start again where a seed is given."""
        self.rates = dict(rates)
        if seed is not None:
            self._random.seed(seed)
        if stall_s is not None:
            self.stall_s = stall_s

    def draw(self) -> Fault | None:
        """The fault of the next callback. One draw each, so that no rate shifts the draws of another."""
        mark = self._random.random()
        for fault, rate in self.rates.items():
            mark -= rate
            if mark < 0:
                return fault
        return None


def check_rates(rates: Mapping[str, object]) -> dict[Fault, float]:
    """Named rates of a mapping, in the order of Fault. Raises FaultError."""
    checked: dict[Fault, float] = {}
    for name, rate in rates.items():
        if name not in frozenset(Fault):
            raise FaultError(f'unknown fault "{name}"; allowed are {", ".join(Fault)}')
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise FaultError(f'the rate of "{name}" is {rate}; it must be between 0 and 1')
        checked[Fault(name)] = float(rate)
    if sum(checked.values()) > _RATES_SUM_MAX:
        raise FaultError(
            f"the rates add up to {sum(checked.values()):g}; a callback has one fault, so they must not exceed 1"
        )
    return {fault: checked[fault] for fault in Fault if checked.get(fault)}


def parse_rates(text: str) -> dict[Fault, float]:
    """Rates as the command line has them: `reset=0.05,not_json=0.01`. Raises FaultError."""
    rates: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, rate = (side.strip() for side in part.partition("="))
        if name in rates:
            raise FaultError(f'the fault "{name}" stands there twice')
        try:
            rates[name] = float(rate)
        except ValueError:
            raise FaultError(f'"{part}" is not of the form name=rate; names are {", ".join(Fault)}') from None
    return check_rates(rates)


def disguise(answer: Answer, fault: Fault | None, amount_format: AmountFormat) -> Sent:
    """What is sent instead of the answer; without a fault that is the answer itself."""
    match fault:
        case Fault.RESET | Fault.RESET_AFTER_APPLY:
            return Sent(http_status=None)
        case Fault.NOT_JSON:
            return Sent(http_status=200, body=_HTML, content_type="text/html")
        case Fault.ERROR_BEFORE_APPLY | Fault.ERROR_AFTER_APPLY:
            shown = Answer(http_status=500, status=Status.INTERNAL_ERROR, message="asked for by --faults")
        case Fault.UNAVAILABLE:
            shown = Answer(http_status=503, status=Status.UNAVAILABLE, message="asked for by --faults")
        case Fault.DUPLICATE if answer.status is Status.OK:
            shown = replace(answer, status=Status.DUPLICATE)
        case _:
            shown = answer
    retry_after_s = 1 if shown.status is Status.UNAVAILABLE else None
    return Sent(http_status=shown.http_status, body=shown.to_json(amount_format), retry_after_s=retry_after_s)
