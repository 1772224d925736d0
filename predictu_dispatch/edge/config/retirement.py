"""Files of retired operators. Not in the loader: only the database knows who is retired."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC
from types import MappingProxyType
from typing import Final

from predictu_dispatch.core.fleet import RetiredOperator
from predictu_dispatch.edge.config.files import Fault
from predictu_dispatch.edge.config.loader import Config, Reload

_ADVICE: Final = (
    "a retired operator is never used again: delete this file; if the operator returns, give it a new operator_id"
)


def without_retired(config: Config, retired: Iterable[RetiredOperator]) -> tuple[Config, tuple[Fault, ...]]:
    """The configuration without the retired operators, and a fault for each of their files.

    The others are used as usual: a file that was left behind must not stop them.
    """
    found = {one.operator_id: one for one in retired if one.operator_id in config.operators}
    if not found:
        return config, ()
    left = {name: operator for name, operator in config.operators.items() if name not in found}
    return replace(config, operators=MappingProxyType(left)), tuple(_faults(config, found))


def reload_without_retired(reload: Reload, retired: Iterable[RetiredOperator]) -> Reload:
    """The same for a reload."""
    config, faults = without_retired(reload.config, retired)
    kept = tuple(name for name in reload.kept if name in config.operators)
    return replace(reload, config=config, faults=(*reload.faults, *faults), kept=kept)


def _faults(config: Config, found: Mapping[str, RetiredOperator]) -> Iterable[Fault]:
    for operator_id, retired in sorted(found.items()):
        at = retired.retired_at.astimezone(UTC)
        yield Fault(
            file=str(config.operators[operator_id].file),
            key="operator_id",
            value=f'"{operator_id}"',
            allowed=f"retired at {at:%Y-%m-%dT%H:%M:%S}Z by {retired.retired_by}; {_ADVICE}",
        )
