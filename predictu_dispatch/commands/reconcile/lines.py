"""The report of a reconciliation: a table for each currency, the checks, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from predictu_dispatch.commands.output import Styled, count, money, print_line, print_wrapped, styled, table, timestamp
from predictu_dispatch.commands.reconcile.hints import hints
from predictu_dispatch.core.difference_classes import Kind
from predictu_dispatch.reconciliation.result import (
    Identity,
    RunResult,
    SourceRead,
    Total,
    UnreadableLine,
    by_currency,
    identities,
)

_MEANINGS: Final = {
    "owed": "the operator's ledger gives players less than it confirmed",
    "over": "the operator's ledger gives players more than it confirmed",
}
_COLOURS: Final = {Kind.DIFFERENCE: "yellow", Kind.CONTRADICTION: "red"}
_NAME_COLUMNS: Final = 24
"""The longest name of a class, so that the tables of all currencies are aligned."""
_COLUMNS: Final = 80
_UNREAD: Final = (
    "No line could be read, so nothing was compared, and no difference of lines was opened or closed: correct"
    " [reconcile] in the operator's file, or ask the operator for another file, and run it again."
)
_EXAMPLES_MAX: Final = 3
"""Unreadable lines in a report that does not list all: the first one of each column."""


def print_report(result: RunResult, *, shows_unreadable: bool) -> None:
    """Print what the run read and found."""
    print_wrapped(_heading(result))
    if result.cut_at < result.ends_at:
        print_wrapped(f"The period has not ended: compared up to {timestamp(result.cut_at, timespec='seconds')}.")
    for source in result.sources:
        print_wrapped(_source_line(source, shows_hint=not shows_unreadable), hanging="    ")
    if fault := _fault(result):
        print_wrapped(fault)
    else:
        _print_tables(result)
    for text in _closing(result):
        print_wrapped(text)
    if shows_unreadable:
        _print_unreadable(result, result.unreadable)
    elif not result.format_fault:
        first_by_column = {one.column: one for one in reversed(result.unreadable)}
        _print_unreadable(result, sorted(first_by_column.values())[:_EXAMPLES_MAX])
    if not _fault(result):
        for hint in hints(result):
            print_wrapped(hint)


def _fault(result: RunResult) -> str:
    """Return the sentence that replaces the tables; "" if the sides were compared."""
    return result.format_fault or (_UNREAD if result.is_unread else "")


def _print_tables(result: RunResult) -> None:
    for currency, totals in by_currency(result.totals).items():
        for line in _table(currency, totals, result.digits.get(currency)):
            print_line(line)
    for tag, meaning in _MEANINGS.items():
        if sums := _to_settle(result)[tag]:
            amounts = ", ".join(money(sums[code], code, result.digits.get(code)) for code in sums)
            print_wrapped(f"{tag} {amounts}: {meaning}", hanging="    ")
    for currency, totals in by_currency(result.totals).items():
        if resolved := sum(one.resolved for one in totals):
            amount = f"{signed(resolved, result.digits.get(currency))} {currency}"
            print_wrapped(
                f"{amount} of the differences show an outcome that was unknown here: not disputed", hanging="    "
            )
    for one in identities(result.totals, result.sums):
        print_wrapped(_identity_line(one, result.digits.get(one.currency)), hanging="    ")
    print_wrapped(_rows_line(result), hanging="    ")
    if result.without_player:
        every = result.without_player >= result.lines_read
        which = (
            "players, because no line names one" if every else f"the players of {count(result.without_player, 'line')}"
        )
        print_wrapped(f"Not compared: {which if every else which + ' without a player_id'}.")


def _heading(result: RunResult) -> str:
    days = str(result.first_day)
    if result.last_day != result.first_day:
        days += f" to {result.last_day}"
    end = "%m-%d %H:%M" if result.ends_at.year == result.starts_at.year else "%Y-%m-%d %H:%M"
    utc = f"{result.starts_at:%Y-%m-%d %H:%M} to {result.ends_at:{end}} UTC"
    return f"{result.operator_id}, {days} {result.time_zone} ({utc})"


def _source_line(source: SourceRead, *, shows_hint: bool) -> str:
    parts = [count(source.lines, "line"), f"{source.read:,} read"]
    if source.ignored:
        parts.append(f"{source.ignored:,} of other products")
    if source.unreadable:
        parts.append(f"{source.unreadable:,} unreadable{' (--unreadable)' if shows_hint else ''}")
    return f"{source.name}: {', '.join(parts)}"


def _table(currency: str, totals: Sequence[Total], digits: int | None) -> Iterator[Styled]:
    head = (f"{currency}, effect on players".ljust(_NAME_COLUMNS), "rows", "ours", "theirs", "difference", "")
    rows = [_cells(total, digits) for total in totals]
    lines = [line.rstrip() for line in table([head, *rows], right=(1, 2, 3, 4))]
    if max(map(len, lines)) > _COLUMNS:
        # Two lines for each class, because no amount may be shortened.
        lines = [
            head[0].rstrip(),
            *(
                f"{name}: {count}  {tag}\n    ours {ours}, theirs {theirs}, difference {difference}"
                for name, count, ours, theirs, difference, tag in rows
            ),
        ]
    colours = [None, *(_COLOURS.get(total.kind) for total in totals)]
    for line, colour in zip(lines, colours, strict=True):
        for part in line.split("\n"):
            yield styled(part.rstrip(), colour=colour)


def _cells(total: Total, digits: int | None) -> tuple[str, ...]:
    return (
        total.name.replace("_", " "),
        f"{total.items:,}",
        signed(total.ours, digits) if total.rows_ours else "-",
        signed(total.theirs, digits) if total.rows_theirs else "-",
        signed(total.difference, digits),
        _tag(total),
    )


def _tag(total: Total) -> str:
    """Return who has to pay: `owed` the operator; `over` is what players have too much there."""
    return ", ".join(tag for tag, amount in (("owed", total.owed), ("over", total.over)) if amount)


def _to_settle(result: RunResult) -> dict[str, dict[str, int]]:
    """What is owed and over, in each currency that has any."""
    found: dict[str, dict[str, int]] = {"owed": {}, "over": {}}
    for currency, totals in by_currency(result.totals).items():
        for tag, amount in (("owed", sum(one.owed for one in totals)), ("over", sum(one.over for one in totals))):
            if amount:
                found[tag][currency] = amount
    return found


def signed(subunits: int, digits: int | None) -> str:
    """Return an amount as the player's wallet sees it: +12.50."""
    number = Decimal(subunits).scaleb(-(digits or 0))
    return f"{number:{'+' if subunits else ''},.{digits or 0}f}"


def _identity_line(one: Identity, digits: int | None) -> str:
    in_flight = f" + in flight {signed(one.in_flight, digits)}" if one.in_flight else ""
    holds = "holds" if not one.broken_days else f"does not hold on {', '.join(map(str, one.broken_days[:5]))}"
    return (
        f"{one.currency}: ours {signed(one.ours, digits)} + differences {signed(one.differences, digits)}{in_flight}"
        f" = theirs {signed(one.theirs, digits)}: {holds}"
    )


def _rows_line(result: RunResult) -> str:
    rows = f"{count(result.rows_ours, 'row')} of ours and {count(result.lines_read, 'line')} of theirs"
    if result.are_rows_complete:
        return f"{rows}: each in exactly one class"
    found = f"{result.rows_ours_in_items:,} and {result.rows_theirs_in_items:,}"
    return f"{rows}, but {found} in classes: this is a fault of Predictu"


def _closing(result: RunResult) -> Iterator[str]:
    if not _fault(result):
        yield _differences_line(result)
    if result.open_contradictions:
        yield (
            f"Our own records contradict each other in {count(result.open_contradictions, 'case')}: a fault of"
            " Predictu, whatever the operator's ledger says. See PredictuRecordsContradict in deploy/runbook.md."
        )
    if result.lines_unreadable:
        verb = "could not be read"
        yield f"Not complete: {count(result.lines_unreadable, 'line')} {verb}."
    elif not result.is_complete:
        yield "Not complete: the amounts or the rows do not add up."


def _differences_line(result: RunResult) -> str:
    totals = [total for total in result.totals if total.kind is Kind.DIFFERENCE]
    items = result.differences
    disputed: dict[str, int] = {}
    for total in totals:
        disputed[total.currency] = disputed.get(total.currency, 0) + total.disputed
    sums = [money(amount, currency, result.digits.get(currency)) for currency, amount in sorted(disputed.items())]
    text = ", ".join([count(items, "difference") if items else "No difference to settle", *sums])
    if result.accepted:
        text += f", {result.accepted:,} of them accepted"
    changes = result.changes
    if changes is None:
        return f"{text}."
    return f"{text}. New since the last run: {changes.new:,}; closed by it: {changes.closed:,}."


def _print_unreadable(result: RunResult, lines: Sequence[UnreadableLine]) -> None:
    for one in lines:
        column = f", column {one.column}" if one.column else ""
        print_wrapped(f"{result.sources[one.source].name}, line {one.line:,}{column}: {one.why}", hanging="    ")
    if left := result.lines_unreadable - len(lines):
        print_line(f"and {left:,} more")


def as_json(result: RunResult) -> dict[str, object]:
    """Return everything that the report has, and amounts in subunits."""
    return {
        "run_id": result.run_id,
        "operator_id": result.operator_id,
        "first_day": result.first_day,
        "last_day": result.last_day,
        "time_zone": result.time_zone,
        "day_starts": f"{result.day_starts:%H:%M}",
        "starts_at": result.starts_at,
        "ends_at": result.ends_at,
        "cut_at": result.cut_at,
        "given_from": result.given_from,
        "given_until": result.given_until,
        "sources": [one._asdict() for one in result.sources],
        "lines": {
            "read": result.lines_read,
            "ignored": sum(one.ignored for one in result.sources),
            "unreadable": result.lines_unreadable,
        },
        "unreadable": [{**one._asdict(), "file": result.sources[one.source].name} for one in result.unreadable],
        "rows_ours": result.rows_ours,
        "totals": [_total_json(total) for total in result.totals],
        "identity": [
            {**one._asdict(), "broken_days": list(one.broken_days), "holds": not one.broken_days}
            for one in identities(result.totals, result.sums)
        ],
        "minor_digits": {currency: result.digits.get(currency) for currency in by_currency(result.totals)},
        "unlisted": result.unlisted,
        "are_rows_complete": result.are_rows_complete,
        **_to_settle(result),
        "open_differences": result.open_count,
        "open_contradictions": result.open_contradictions,
        "first_sent_at": result.first_sent_at,
        "changes": None if result.changes is None else result.changes._asdict(),
        "format_fault": result.format_fault or None,
        "is_complete": result.is_complete,
        "ok": result.is_settled,
    }


def _total_json(total: Total) -> dict[str, object]:
    row = total._asdict()
    row["class"] = row.pop("name")
    return {**row, "kind": total.kind, "difference": total.difference}
