"""The couriers of a daemon, one per operator and lane, replaced when the configuration changes.

A replaced courier finishes its attempts in flight with its own settings, key and connections, and
then closes. So a reload neither loses a claimed callback nor sends it through another courier.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from predictu_dispatch.core.methods import Lane
from predictu_dispatch.flow.courier import Courier
from predictu_dispatch.flow.dispatcher import Dispatcher

OperatorT = TypeVar("OperatorT")


class CourierPool(Generic[OperatorT]):
    """Gives the dispatchers their couriers; `make` creates one with its own connections."""

    def __init__(self, make: Callable[[OperatorT, Lane], Courier], dispatchers: Mapping[Lane, Dispatcher]) -> None:
        self._make = make
        self._dispatchers = dispatchers
        self._operators: Mapping[str, OperatorT] = {}
        self._couriers: dict[tuple[str, Lane], Courier] = {}
        self._retiring: dict[Courier, asyncio.Task[None]] = {}

    async def serve(self, operators: Mapping[str, OperatorT]) -> int:
        """Serve these operators, by id; returns how many are new, changed or removed."""
        before = self._operators
        changed = {name for name in before.keys() | operators.keys() if before.get(name) != operators.get(name)}
        # Created before anything is replaced: if one fails, nothing changes.
        made = {(name, lane): self._make(operators[name], lane) for name in changed & operators.keys() for lane in Lane}
        self._operators = operators
        retired = [self._couriers.pop(key) for key in list(self._couriers) if key[0] in changed]
        self._couriers.update(made)
        for lane, dispatcher in self._dispatchers.items():
            await dispatcher.use_couriers(
                {name: courier for (name, of), courier in self._couriers.items() if of is lane}
            )
        for courier in retired:
            self._retiring[courier] = asyncio.create_task(self._retire(courier), name="retire")
        return len(changed)

    def interrupt(self) -> None:
        """End all attempts in flight now, as `interrupted`."""
        for courier in (*self._couriers.values(), *self._retiring):
            courier.interrupt()

    async def close(self) -> None:
        """Close all connections at once."""
        for task in self._retiring.values():
            task.cancel()
        for courier in (*self._couriers.values(), *self._retiring):
            await courier.close()

    async def _retire(self, courier: Courier) -> None:
        await courier.retire()
        del self._retiring[courier]
