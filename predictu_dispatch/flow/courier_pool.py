"""The couriers of a daemon: one for each operator and lane, replaced when an operator's configuration changes.

A courier that was replaced finishes what it has under way, with the settings, key and connections it began with, and
then closes. Nothing that was claimed for it is ever lost or sent by another.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from predictu_dispatch.core.methods import Lane

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from predictu_dispatch.flow.courier import Courier
    from predictu_dispatch.flow.dispatcher import Dispatcher

OperatorT = TypeVar("OperatorT")


class CourierPool(Generic[OperatorT]):
    """Gives the dispatchers their couriers. `make` makes one with connections of its own."""

    def __init__(self, make: Callable[[OperatorT, Lane], Courier], dispatchers: Mapping[Lane, Dispatcher]) -> None:
        self._make = make
        self._dispatchers = dispatchers
        self._operators: Mapping[str, OperatorT] = {}
        self._couriers: dict[tuple[str, Lane], Courier] = {}
        self._retiring: dict[Courier, asyncio.Task[None]] = {}

    async def serve(self, operators: Mapping[str, OperatorT]) -> int:
        """These operators, by id, are served from now on; returns how many are new, changed or gone."""
        before = self._operators
        changed = {name for name in before.keys() | operators.keys() if before.get(name) != operators.get(name)}
        # Made before anything is replaced: where one cannot be made, everything stays as it was.
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
        """Whatever is under way ends now, as `interrupted`."""
        for courier in (*self._couriers.values(), *self._retiring):
            courier.interrupt()

    async def close(self) -> None:
        """All connections are closed, whatever is under way."""
        for task in self._retiring.values():
            task.cancel()
        for courier in (*self._couriers.values(), *self._retiring):
            await courier.close()

    async def _retire(self, courier: Courier) -> None:
        await courier.retire()
        del self._retiring[courier]
