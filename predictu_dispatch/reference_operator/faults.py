"""Faults on request, to test how the other side recovers; they change only replies."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum

from .answer import Answer, Reply, Status
from .money import Money


class Fault(StrEnum):
    """The faults; each has a rate, the share of callbacks that get it."""

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
"""With these faults the callback never reaches the wallet; with all others it is applied."""
_HTML = "<!doctype html><title>Wallet</title><p>Please sign in."
"""What a proxy or a login page in front of the wallet may answer."""
_RATES_SUM_MAX = 1 + 1e-9
"""Ten rates of 0.1 add up to slightly more than 1 in floating point."""


class FaultError(ValueError):
    """Invalid rates; the message names the value and what is allowed."""


class FaultSource:
    """Draws at most one fault per verified callback; the seed and order of arrival decide it."""

    def __init__(self, rates: Mapping[Fault, float], *, seed: int | None, stall_s: float) -> None:
        self.rates = dict(rates)
        self.stall_s = stall_s
        self._random = random.Random(seed)  # noqa: S311 # Not used for secrets.

    def change(self, rates: Mapping[Fault, float], *, seed: int | None, stall_s: float | None) -> None:
        """Replaces all rates from the next callback on; a seed restarts the draws."""
        self.rates = dict(rates)
        if seed is not None:
            self._random.seed(seed)
        if stall_s is not None:
            self.stall_s = stall_s

    def draw(self) -> Fault | None:
        """Returns the next callback's fault; one draw per callback keeps the rates independent."""
        point = self._random.random()
        for fault, rate in self.rates.items():
            point -= rate
            if point < 0:
                return fault
        return None


def check_rates(rates: Mapping[str, object]) -> dict[Fault, float]:
    """Returns the rates in the order of Fault. Raises FaultError."""
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
    """Parses `reset=0.05,not_json=0.01`. Raises FaultError."""
    rates: dict[str, object] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, rate = (side.strip() for side in part.partition("="))
        if name in rates:
            raise FaultError(f'the fault "{name}" is given twice')
        try:
            rates[name] = float(rate)
        except ValueError:
            raise FaultError(f'"{part}" is not of the form name=rate; names are {", ".join(Fault)}') from None
    return check_rates(rates)


def reply_to(answer: Answer, fault: Fault | None, money: Money) -> Reply:
    """Returns the reply for an answer, changed by the fault if there is one."""
    match fault:
        case Fault.RESET | Fault.RESET_AFTER_APPLY:
            return Reply(http_status=None)
        case Fault.NOT_JSON:
            return Reply(http_status=200, body=_HTML, content_type="text/html")
        case Fault.ERROR_BEFORE_APPLY | Fault.ERROR_AFTER_APPLY:
            sent = Answer(http_status=500, status=Status.INTERNAL_ERROR, message="requested by --faults")
        case Fault.UNAVAILABLE:
            sent = Answer(http_status=503, status=Status.UNAVAILABLE, message="requested by --faults")
        case Fault.DUPLICATE if answer.status is Status.OK:
            sent = replace(answer, status=Status.DUPLICATE)
        case _:
            sent = answer
    retry_after_s = 1 if sent.status is Status.UNAVAILABLE else None
    return Reply(http_status=sent.http_status, body=sent.to_json(money), retry_after_s=retry_after_s)
