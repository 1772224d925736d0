"""The log lines and metrics about witnesses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry, Metric

from predictu_dispatch.core.events import Event
from predictu_dispatch.core.witness import Submission, Witness, WitnessFigures
from predictu_dispatch.edge.telemetry.families import gauge

_AGE_MAX_S: Final = 60.0
"""Older figures are left out."""

log = structlog.get_logger()


class Chores(Protocol):
    """Telemetry's methods about chores."""

    def chore_failed(self, chore: str, error: Exception) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...


class WitnessTelemetry:
    """The observer of flow/witnesses.py, and a collector of its gauges."""

    def __init__(self, registry: CollectorRegistry, chores: Chores) -> None:
        self._chores = chores
        self._figures: Sequence[WitnessFigures] = ()
        self._read_at_s = time.monotonic()
        registry.register(self)

    def chore_failed(self, chore: str, error: Exception) -> None:
        self._chores.chore_failed(chore, error)

    def chore_succeeded(self, chore: str) -> None:
        self._chores.chore_succeeded(chore)

    def cosigned(self, witness: Witness, sent: Submission) -> None:
        log.debug(Event.AUDIT_COSIGNED, operator_id=sent.operator_id, witness=witness.name, size=sent.size)

    def witness_refused(self, witness: Witness, sent: Submission, reason: str) -> None:
        log.warning(
            Event.AUDIT_WITNESS_REFUSED,
            operator_id=sent.operator_id,
            witness=witness.name,
            size=sent.size,
            reason=reason,
        )

    def witness_failed(self, witness: Witness, sent: Submission, reason: str) -> None:
        log.info(
            Event.AUDIT_WITNESS_FAILED,
            operator_id=sent.operator_id,
            witness=witness.name,
            size=sent.size,
            reason=reason,
        )

    def witnesses_read(self, figures: Sequence[WitnessFigures]) -> None:
        self._figures, self._read_at_s = figures, time.monotonic()

    def collect(self) -> Iterable[Metric]:
        """Yield the gauges; a figure that could not be read recently is absent."""
        figures = self._figures if time.monotonic() - self._read_at_s <= _AGE_MAX_S else ()
        yield gauge(
            "audit_witness_behind_seconds",
            "Age of the oldest stored checkpoint that this witness has not cosigned; 0 if it has cosigned all. "
            "The same in every daemon.",
            {(one.operator_id, one.witness): one.behind_s for one in figures},
            *("operator", "witness"),
        )
        yield gauge(
            "audit_witness_refused",
            "1 after this witness answered that our log does not continue the one it knows, until it cosigns again: "
            "the database was restored from an older state or changed, or the witness does not know our key. "
            "The same in every daemon.",
            {(one.operator_id, one.witness): one.is_refused for one in figures},
            *("operator", "witness"),
        )
