"""Keeps the audit small while an operator gives the same long answer again and again.

The whole body is stored for the first, the deciding and each differing attempt of a callback. An
attempt that repeats an answer whose whole body this daemon has settled stores the beginning, the
SHA-256 of the whole body, and the number of the attempt that has it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final
from uuid import UUID

from predictu_dispatch.core.lifecycle import Attempt, CallbackChange, CallbackState, Cause

BEGINNING_BYTES: Final = 4096
"""What a repetition stores of its body; a shorter body is always stored whole."""
CALLBACKS_MAX: Final = 10_000
"""About 5 MB. Beyond it the callback that was not retried for longest is forgotten."""
BODIES_MAX: Final = 4
"""Bodies of one callback that are remembered."""


class Repetitions:
    """Which whole bodies the audit has of the callbacks that this daemon retries."""

    def __init__(self) -> None:
        self._stored: OrderedDict[tuple[str, UUID], tuple[tuple[bytes, int], ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._stored)

    def shortened(self, attempt: Attempt) -> Attempt:
        """Return the attempt as it is stored: with the beginning of its body if it repeats one."""
        body = attempt.exchange.body
        if len(body) <= BEGINNING_BYTES or attempt.outcome.state is not CallbackState.READY:
            return attempt
        stored = self._stored.get((attempt.callback.operator_id, attempt.callback.request_id))
        if stored is None:
            return attempt
        sha256 = hashlib.sha256(body).digest()
        for known, number in stored:
            # A late report of an earlier attempt does not repeat a later one.
            if known == sha256 and number < attempt.callback.attempt:
                return attempt._replace(
                    exchange=attempt.exchange._replace(body=body[:BEGINNING_BYTES]),
                    response_body_sha256=sha256,
                    response_body_repeats=number,
                )
        return attempt

    def note(self, stored: Attempt, change: CallbackChange) -> None:
        """Remember the body of an attempt that was stored like this and settled with this change.

        A final state ends the callback's attempts.
        """
        is_long = len(stored.exchange.body) > BEGINNING_BYTES
        if change.cause is not Cause.SETTLED or not (self._stored or is_long):
            return
        key = stored.callback.operator_id, stored.callback.request_id
        if change.state is not CallbackState.READY:
            self._stored.pop(key, None)
        elif stored.response_body_repeats is not None:
            self._stored.move_to_end(key)
        elif is_long:
            body = hashlib.sha256(stored.exchange.body).digest(), stored.callback.attempt
            self._stored[key] = (*self._stored.pop(key, ()), body)[-BODIES_MAX:]
            if len(self._stored) > CALLBACKS_MAX:
                self._stored.popitem(last=False)

    def forget(self, operator_id: str, request_id: UUID) -> None:
        """The callback has ended without a further attempt."""
        self._stored.pop((operator_id, request_id), None)
