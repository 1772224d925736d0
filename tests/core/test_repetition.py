"""Which attempts store their whole body, and how many of them the daemon remembers."""

import hashlib
from uuid import UUID

import pytest

from predictu_dispatch.core.lifecycle import Attempt, CallbackChange, CallbackState, Cause
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.repetition import BEGINNING_BYTES, BODIES_MAX, CALLBACKS_MAX, Repetitions
from predictu_dispatch.core.verdict import Verdict
from tests.support.telemetry import attempt_of

LONG, OTHER = b"a" * 65_536, b"b" * 5_000


def attempt(number: int, body: bytes = LONG, state: CallbackState = CallbackState.READY, request: int = 1) -> Attempt:
    verdict = Verdict.RETRY if state is CallbackState.READY else Verdict.DELIVERED
    one = attempt_of(Method.BET_WIN, verdict, None, state)
    return one._replace(
        callback=one.callback._replace(attempt=number, request_id=UUID(int=request)),
        exchange=one.exchange._replace(body=body),
    )


def change(one: Attempt, cause: Cause = Cause.SETTLED, state: CallbackState | None = None) -> CallbackChange:
    callback = one.callback
    state = state or one.outcome.state
    return CallbackChange(
        *(callback.operator_id, callback.request_id, callback.method, callback.lane),
        *(state, None, cause, callback.attempt),
    )


def settle(repetitions: Repetitions, *attempts: Attempt) -> list[int | None]:
    """Settles these in order; returns which earlier attempt each one's row refers to."""
    referred = []
    for one in attempts:
        stored = repetitions.shortened(one)
        repetitions.note(stored, change(stored))
        referred.append(stored.response_body_repeats)
    return referred


def test_the_first_each_differing_and_the_deciding_attempt_store_the_whole_body() -> None:
    attempts = (
        *(attempt(1), attempt(2), attempt(3), attempt(4, OTHER), attempt(5, OTHER), attempt(6)),
        attempt(7, state=CallbackState.DELIVERED),
    )
    assert settle(Repetitions(), *attempts) == [None, 1, 1, None, 4, 1, None]


def test_a_repetition_stores_the_beginning_and_the_hash_of_the_whole() -> None:
    repetitions = Repetitions()
    settle(repetitions, attempt(1))
    stored = repetitions.shortened(attempt(2))
    assert stored.exchange.body == LONG[:BEGINNING_BYTES]
    assert stored.response_body_sha256 == hashlib.sha256(LONG).digest()
    assert stored._replace(
        exchange=attempt(2).exchange, response_body_sha256=None, response_body_repeats=None
    ) == attempt(2)


@pytest.mark.parametrize(("length", "referred"), [(BEGINNING_BYTES, None), (BEGINNING_BYTES + 1, 1)])
def test_a_short_body_is_always_stored_whole(length: int, referred: int | None) -> None:
    assert settle(Repetitions(), attempt(1, b"x" * length), attempt(2, b"x" * length)) == [None, referred]


@pytest.mark.parametrize("cause", [Cause.LATE, Cause.REPEATED, Cause.LOCKED, Cause.UNKNOWN_ATTEMPT])
def test_only_what_was_settled_with_its_whole_body_is_referred_to(cause: Cause) -> None:
    repetitions = Repetitions()
    repetitions.note(attempt(1), change(attempt(1), cause))
    # The audit refused the content.
    repetitions.note(attempt(2, b""), change(attempt(2)))
    assert repetitions.shortened(attempt(3)) == attempt(3)


def test_an_earlier_attempt_that_is_settled_later_refers_to_no_later_one() -> None:
    assert settle(Repetitions(), attempt(2), attempt(1)) == [None, None]


def test_another_callback_with_the_same_answer_stores_it_whole() -> None:
    assert settle(Repetitions(), attempt(1), attempt(2, request=2)) == [None, None]


def test_a_final_callback_is_forgotten() -> None:
    repetitions = Repetitions()
    settle(repetitions, attempt(1), attempt(1, request=2), attempt(1, request=3), attempt(1, request=4))
    settle(repetitions, attempt(2, b"", CallbackState.DELIVERED))
    # The database ends the attempts of a placement that is being rolled back.
    repetitions.note(attempt(2, request=2), change(attempt(2, request=2), state=CallbackState.EXHAUSTED))
    repetitions.forget("op_abc123", UUID(int=3))
    assert len(repetitions) == 1
    assert settle(repetitions, attempt(3), attempt(2, request=4)) == [None, 1]


def test_what_is_remembered_is_bounded() -> None:
    repetitions = Repetitions()
    for request in range(1, CALLBACKS_MAX + 1):
        settle(repetitions, attempt(1, OTHER, request=request))
    # The first one is retried, so the second one is the oldest.
    assert settle(repetitions, attempt(2, OTHER, request=1), attempt(1, OTHER, request=CALLBACKS_MAX + 1)) == [1, None]
    assert len(repetitions) == CALLBACKS_MAX
    assert settle(repetitions, attempt(2, OTHER, request=2), attempt(3, OTHER, request=1)) == [None, 1]
    bodies = [bytes([number]) * 5_000 for number in range(BODIES_MAX + 1)]
    attempts = [attempt(number, body, request=1) for number, body in enumerate((*bodies, *bodies[-1:0:-1]), 10)]
    assert settle(repetitions, *attempts) == [*[None] * len(bodies), *range(10 + BODIES_MAX, 10, -1)]
    assert settle(repetitions, attempt(99, bodies[0], request=1)) == [None]
