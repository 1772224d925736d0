"""The courier makes one attempt: body, signature, POST, judgement, outcome. It stores nothing."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Generic, Protocol, TypeVar

from predictu_dispatch.core.callback import Callback, Evidence, Exchange, body
from predictu_dispatch.core.clock import ClockReading, DatabaseClock
from predictu_dispatch.core.lifecycle import Attempt, outcome_of, policy_of
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.redaction import without_signature
from predictu_dispatch.core.signing import base64url, jti_of, unsigned_token
from predictu_dispatch.core.verdict import Statuses, judge
from predictu_dispatch.flow.ports import Operator, Transport

USER_AGENT = "predictu-dispatch"
NOT_SERVED = "not_served"
"""Why no connection was opened to an operator without a courier."""
_TIMEOUT_SPREAD = 0.05
"""An attempt may end earlier than its timeout by this part. Attempts that start together must not
time out together, or a silent operator would hold up the loop for all others each time."""
_HEADERS = {
    "Content-Type": "application/json",
    # Each attempt puts its token here; the audit withholds the signature.
    "Authorization": "Bearer {token}",
    "Accept": "application/json",
    # No compressed answers, so no decompression bombs.
    "Accept-Encoding": "identity",
    "User-Agent": USER_AGENT,
}
_BEFORE_TOKEN, _, _AFTER_TOKEN = json.dumps(_HEADERS).partition("{token}")
_WITHHELD = ".[signature withheld]"
"""Replaces the signature in the audited headers: a whole token would be a credential."""
_SIGNERS = ThreadPoolExecutor(max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="sign")
"""An RSA signature takes a millisecond and releases Python's lock, so others run meanwhile."""


class Courier:
    """Delivers the callbacks of one operator's lane."""

    def __init__(
        self,
        operator: Operator,
        transport: Transport,
        *,
        lane: Lane,
        instance: str,
        clock: DatabaseClock | None = None,
    ) -> None:
        self.operator = operator
        self.lane = lane
        self._transport = transport
        self._instance = instance
        self._clock = clock or DatabaseClock()
        self._statuses = Statuses.of(operator.settings.statuses)
        self._policies = {method: policy_of(method, operator.settings) for method in Method}
        self._in_flight = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def deliver(self, callback: Callback) -> Coroutine[Any, Any, Attempt]:
        """Make one attempt and return it with its outcome, whatever happens; it never raises.

        It counts as in flight from this call on, also before it is awaited.
        """
        self._in_flight += 1
        self._is_idle.clear()
        return self._attempt(callback)

    async def connect(self) -> str | None:
        """Open a connection without a request; return why it could not be opened, else None."""
        return await self._transport.connect(self.operator.settings.lane(self.lane).connect_timeout_s)

    def interrupt(self) -> None:
        self._transport.interrupt()

    async def retire(self) -> None:
        """Close the connections once all attempts in flight have ended; none may be added."""
        await self._is_idle.wait()
        await self._transport.close()

    async def close(self) -> None:
        """Close the connections at once."""
        await self._transport.close()

    async def _attempt(self, callback: Callback) -> Attempt:
        settings = self.operator.settings
        policy = self._policies[callback.method]
        if callback.placement_ended_s_ago is not None:
            callback = self._with_known_age(callback)
        audited_headers = request_body = signature = None
        try:
            request_body = body(callback)
            unsigned = self._unsigned_token(callback, request_body)
            signature = await self._signature(unsigned.encode())
            encoded_signature = base64url(signature)
            audited_headers = f"{_BEFORE_TOKEN}{unsigned}{_WITHHELD}{_AFTER_TOKEN}"
        except Exception as error:  # noqa: BLE001 - a callback that cannot be written must not stop the others
            exchange = Exchange(
                evidence=Evidence.NOT_SENT,
                reason="internal_error",
                error=f"{type(error).__name__}: {error}",
                total_ms=0.0,
            )
        else:
            exchange = await self._transport.post(
                headers={**_HEADERS, "Authorization": f"Bearer {unsigned}.{encoded_signature}"},
                body=request_body,
                timeout_s=policy.attempt_timeout_s * (1 - _TIMEOUT_SPREAD * random.random()),  # noqa: S311 - as below
                connect_timeout_s=policy.connect_timeout_s,
                send_before_s=callback.send_before_s,
            )
            # Before the answer is judged and stored, so the signature is in no field of either.
            exchange = without_signature(exchange, encoded_signature)
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._is_idle.set()
        elapsed_s = time.monotonic() - callback.leased_at_s
        finished_at = callback.leased_at + timedelta(seconds=elapsed_s)
        judgement = judge(callback, exchange, self._statuses, now=finished_at)
        return Attempt(
            callback=callback,
            instance=self._instance,
            finished_at=finished_at,
            url=settings.callback_url,
            key_id=self.operator.signing_key.kid,
            request_headers=audited_headers,
            request_body=None if request_body is None else request_body.decode(),
            token_signature=signature,
            exchange=exchange,
            judgement=judgement,
            outcome=outcome_of(
                callback,
                judgement,
                policy,
                recheck_s=settings.rollback.recheck_s,
                elapsed_s=elapsed_s,
                jitter=2 * random.random() - 1,  # noqa: S311 - spreads retries in time, guards nothing
            ),
            # Must be unique, need not be secret: the system's randomness would cost a system call.
            report_id=uuid.UUID(int=random.getrandbits(128), version=4),
        )

    def _with_known_age(self, callback: Callback) -> Callback:
        """The rollback; its placement ended no earlier than the clock is known to be steady.

        After a step forward a debit of a moment ago would look as if it could land no more. A step
        before this daemon started was seen by nobody here.
        """
        ended_s_ago, now_s = callback.placement_ended_s_ago or 0.0, time.monotonic()
        # The claim is the newest reading.
        self._clock.observe(ClockReading(callback.leased_at.timestamp(), callback.leased_at_s, now_s))
        known_s = self._clock.stepped_s_ago(now_s)
        if callback.reason != "nothing_to_reverse":
            # Once: the pause before the recheck is as long as a debit may take.
            known_s = min(known_s, self._clock.steady_for_s(now_s))
        return callback._replace(placement_ended_s_ago=min(ended_s_ago, max(0.0, known_s)))

    def _unsigned_token(self, callback: Callback, request_body: bytes) -> str:
        signing = self.operator.settings.signing
        return unsigned_token(
            self.operator.signing_key,
            operator_id=callback.operator_id,
            method=callback.method,
            jti=jti_of(signing.jti, str(callback.request_id), callback.attempt),
            body=request_body,
            issued_at_s=int(self._clock.issued_at_s(time.time(), time.monotonic())),
            ttl_s=signing.token_ttl_s,
            audience=signing.audience,
        )

    async def _signature(self, message: bytes) -> bytes:
        key = self.operator.signing_key
        if key.algorithm == "RS256":
            return await asyncio.get_running_loop().run_in_executor(_SIGNERS, key.signature, message)
        return key.signature(message)


OperatorT = TypeVar("OperatorT")


class CourierUser(Protocol):
    """What delivers through the couriers of one lane: its dispatcher."""

    def use_couriers(self, couriers: Mapping[str, Courier]) -> None: ...
    async def claim_ended(self) -> None: ...


class NewCouriers(Generic[OperatorT]):
    """Couriers that are ready to serve `operators`, and do not yet; close() if they never will.

    They can serve only if none has `failed`.
    """

    def __init__(self, operators: Mapping[str, OperatorT]) -> None:
        self.operators = operators
        self.couriers: dict[tuple[str, Lane], Courier] = {}
        self.failed: dict[str, Exception] = {}
        """Why the couriers of an operator cannot be created."""

    async def close(self) -> None:
        for courier in self.couriers.values():
            await courier.close()


class CourierPool(Generic[OperatorT]):
    """Gives the dispatchers their couriers; `make` creates one with its own connections.

    A replaced courier finishes its attempts in flight with its own settings, key and connections,
    so a reload loses no claimed callback. What may fail is in prepare(); serve() cannot fail, and
    from then on a replaced courier is closed in any case.
    """

    def __init__(self, make: Callable[[OperatorT, Lane], Courier], users: Mapping[Lane, CourierUser]) -> None:
        self._make = make
        self._users = users
        self._operators: Mapping[str, OperatorT] = {}
        self._couriers: dict[tuple[str, Lane], Courier] = {}
        self._retiring: dict[Courier, asyncio.Task[None]] = {}

    def prepare(self, operators: Mapping[str, OperatorT]) -> NewCouriers[OperatorT]:
        """Create the couriers of new and changed operators; nothing else changes."""
        new = NewCouriers(operators)
        for name in self._changed(operators) & operators.keys():
            try:
                for lane in Lane:
                    new.couriers[name, lane] = self._make(operators[name], lane)
            except Exception as error:  # noqa: BLE001 - of this operator only
                new.failed[name] = error
        return new

    def serve(self, new: NewCouriers[OperatorT]) -> int:
        """Serve these operators; returns how many are new, changed or removed."""
        changed = self._changed(new.operators)
        self._operators = new.operators
        retired = [self._couriers.pop(key) for key in list(self._couriers) if key[0] in changed]
        self._couriers.update(new.couriers)
        for lane, user in self._users.items():
            user.use_couriers({name: courier for (name, of), courier in self._couriers.items() if of is lane})
        for courier in retired:
            self._retiring[courier] = asyncio.create_task(self._retire(courier), name="retire")
        return len(changed)

    def _changed(self, operators: Mapping[str, OperatorT]) -> set[str]:
        names = self._operators.keys() | operators.keys()
        return {name for name in names if self._operators.get(name) != operators.get(name)}

    async def connect(self, operator_id: str) -> str | None:
        """Open a connection to this operator without a request, as Courier.connect() does."""
        courier = self._couriers.get((operator_id, Lane.INTERACTIVE))
        return NOT_SERVED if courier is None else await courier.connect()

    def interrupt(self) -> None:
        for courier in (*self._couriers.values(), *self._retiring):
            courier.interrupt()

    async def close(self) -> None:
        for task in self._retiring.values():
            task.cancel()
        for courier in (*self._couriers.values(), *self._retiring):
            await courier.close()

    async def _retire(self, courier: Courier) -> None:
        await self._users[courier.lane].claim_ended()
        await courier.retire()
        del self._retiring[courier]
