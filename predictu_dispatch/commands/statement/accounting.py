"""The accounting days of a statement: those of the operator's file, or of --zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.core.accounting_days import AccountingDays, time_zone

if TYPE_CHECKING:
    from predictu_dispatch.commands.invocation import Invocation
    from predictu_dispatch.core.reconcile_settings import ReconcileSettings

_UTC: Final = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """Accounting days, and how they were chosen."""

    days: AccountingDays
    zone: str
    is_assumed: bool = False
    """True if nothing names the zone."""


def accounting_of(invocation: Invocation, operator: str, zone: str | None) -> Accounting:
    """Return the accounting days; ends the command if the zone is unknown or the file is faulty."""
    given = None
    if zone is not None:
        try:
            given = time_zone(zone)
        except ValueError as error:
            raise click.BadParameter(f"'{zone}' is not {error}", param_hint="--zone") from None
    settings = _settings(invocation, operator)
    if settings is None:
        return Accounting(
            days=AccountingDays(zone=given or time_zone(_UTC)), zone=zone or _UTC, is_assumed=zone is None
        )
    days = settings.days
    if given is not None:
        days = AccountingDays(zone=given, day_starts=days.day_starts)
    return Accounting(days=days, zone=zone or settings.time_zone)


def _settings(invocation: Invocation, operator: str) -> ReconcileSettings | None:
    """[reconcile] of the operator's file; None if this host has no such file."""
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.config.operator_file import read_ledger_settings  # noqa: PLC0415

    folder = invocation.config.parent / "operators"
    # An operator's id is part of a path only if a file has exactly this name.
    file = next((one for one in folder.glob("*.toml") if one.stem == operator), None)
    if file is None:
        return None
    try:
        return read_ledger_settings(file).reconcile
    except ConfigError as error:
        invocation.refuse(error)
