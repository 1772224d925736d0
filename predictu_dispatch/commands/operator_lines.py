"""The table of operators, and a sentence with the cause and the next command for each problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final

from predictu_dispatch.commands import advice
from predictu_dispatch.commands.output import (
    Row,
    count,
    duration,
    joined,
    rounded,
    shortened,
    styled,
    table,
    wrapped,
)
from predictu_dispatch.commands.overview import Operator
from predictu_dispatch.commands.texts import failure_text, reason_text
from predictu_dispatch.core.operator_problems import FAILING, Problem, by_severity

NO_OPERATOR: Final = "no operators: a daemon registers them when it starts or reloads"
WIDE_COLUMNS: Final = 100
"""From here on, the table has more columns."""
_ID_COLUMNS_MAX: Final = 20
"""The width of an operator's id in a narrow table; its sentence has the whole id."""
_OTHER_COLUMNS: Final = 92
"""What the wide table's other columns need."""
_ANSWER_COLUMNS_MIN: Final = 60
_BRIEF_ANSWER_COLUMNS: Final = 30
_SENTENCE_COLUMNS: Final = 20
"""What is on the line of an answer beside it."""
_HEADS: Final = (
    ("", "wait-", "bets", "bets in", "settl.", "in", "oldest", "un-"),
    ("operator", "ing", "ready", "flight", "ready", "flight", "due", "known"),
)
_WIDE_HEADS: Final = (("failures", "last", "dae-"), ("in a row", "success", "mons"))
_STATES: Final = {
    Problem.CIRCUIT_HALF_OPEN: "half open",
    Problem.UNKNOWN_EFFECT: "uncertain",
    Problem.NEVER_ANSWERED: "unknown",
}
"""A problem's name in the table, if it differs."""
_YELLOW: Final = frozenset({Problem.DEGRADED, Problem.UNREACHABLE, Problem.BACKING_OFF, Problem.UNKNOWN_EFFECT})
_UNSEEN: Final = frozenset({Problem.NEVER_ANSWERED, Problem.DISABLED})


class Room(Enum):
    """How much of each operator is shown."""

    FULL = "table, and sentences with all facts"
    BRIEF = "table, and sentences with the cause and the command only"
    TIGHT = "sentences without a table; operators without problems are left out"


def operator_lines(operators: Sequence[Operator], *, columns: int, room: Room = Room.FULL) -> Iterator[str]:
    """A line for each operator, then a sentence for each one with a problem."""
    if room is Room.TIGHT:
        yield from (line for operator in operators for line in _sentence(operator, columns, room))
        return
    is_wide = columns >= WIDE_COLUMNS
    heads = [head + wide if is_wide else head for head, wide in zip(_HEADS, _WIDE_HEADS, strict=True)]
    id_columns = max(_ID_COLUMNS_MAX, columns - _OTHER_COLUMNS) if is_wide else _ID_COLUMNS_MAX
    cells = [_cells(operator, id_columns, is_wide=is_wide) for operator in operators]
    first_head, second_head, *lines = table([*heads, *cells], gap=" ", right=range(1, len(heads[0])))
    state_columns = columns - len(first_head) - 1
    yield styled(first_head.rstrip(), bold=True)
    yield styled(f"{second_head} state", bold=True)
    for operator, line in zip(operators, lines, strict=True):
        yield joined(line, " ", styled(_fitted(_states(operator), state_columns), colour=_colour(operator)))
    sentences = [line for operator in operators for line in _sentence(operator, columns, room)]
    if sentences:
        yield ""
    yield from sentences


def problem_counts(operators: Sequence[Operator]) -> str:
    """How many operators have which problem first, and how many are well: `2 degraded, 3 well`."""
    counts = Counter(operator.problems[0] for operator in operators if operator.problems)
    parts = [f"{counts[problem]:,} {problem}" for problem in by_severity(counts)]
    well = len(operators) - counts.total()
    return ", ".join([*parts, f"{well:,} well"] if well or not parts else parts)


def _cells(operator: Operator, id_columns: int, *, is_wide: bool) -> tuple[str, ...]:
    bets, settlements = operator.lanes[0], operator.lanes[-1]
    row, oldest_s = operator.row, operator.oldest_due_s
    cells = (
        shortened(operator.operator_id, id_columns),
        rounded(operator.total("waiting")),
        rounded(bets["ready"]),
        _in_flight(bets),
        rounded(settlements["ready"]),
        _in_flight(settlements),
        "-" if oldest_s is None else _short(oldest_s),
        rounded(operator.total("unknown_effect")),
    )
    if not is_wide:
        return cells
    success_s = row["last_success_s_ago"]
    success = "never" if success_s is None else _short(success_s)
    return (*cells, rounded(row["consecutive_failures"]), success, str(row["daemons"]))


def _in_flight(lane: Row) -> str:
    # The number of slots is known only while a daemon runs.
    return rounded(lane["in_flight"]) + ("" if lane["slots"] is None else f"/{rounded(lane['slots'])}")


def _states(operator: Operator) -> list[str]:
    row = operator.row
    names = []
    for problem in operator.problems:
        match problem:
            case Problem.CIRCUIT_OPEN:
                names.append("open" if row["circuit_for_s"] is None else f"open {_short(row['circuit_for_s'])}")
            case Problem.BACKING_OFF:
                names.append(f"backoff {_short(max(lane['backoff_for_s'] for lane in operator.lanes))}")
            case _:
                names.append(_STATES.get(problem, str(problem)))
    return names or ["healthy"]


def _colour(operator: Operator) -> str | None:
    if not operator.problems:
        return "green"
    first = operator.problems[0]
    return None if first in _UNSEEN else "yellow" if first in _YELLOW else "red"


def _fitted(states: Sequence[str], room: int) -> str:
    """As many states as fit, at least the first; … stands for those in the sentences only."""
    for number in range(len(states), 1, -1):
        text = ", ".join(states[:number]) + ("…" if number < len(states) else "")
        if len(text) <= room:
            return text
    more = "…" if len(states) > 1 else ""
    # Of two words the second is an age.
    first = states[0] if len(states[0]) + len(more) <= room else states[0].partition(" ")[0]
    return shortened(first, room - len(more)) + more


def _sentence(operator: Operator, columns: int, room: Room) -> list[str]:
    """The problems with their cause, and at the end the command that helps with the first."""
    row = operator.row
    if room is Room.FULL:
        facts = [fact for problem in operator.problems if (fact := _fact(problem, operator, columns))]
    else:
        facts = _first_fact(operator, columns)
    if not facts:
        return []
    text = advice.on_problem(operator.problems[0], row["last_failure_reason"], row["last_failure_status"])
    unknown = next((lane["unknown_request_id"] for lane in operator.lanes if lane["unknown_request_id"]), None)
    helps = text.format(
        operator_id=operator.operator_id, oldest_request_id=row["oldest_request_id"], unknown_request_id=unknown
    )
    ready = f"{_states(operator)[0]}, {rounded(operator.total('ready'))} ready: " if room is Room.TIGHT else ""
    return wrapped(f"{operator.operator_id}: {ready}{'; '.join(facts)} → {helps}", hanging="  ", columns=columns)


def _first_fact(operator: Operator, columns: int) -> list[str]:
    """What the first problem is, in a few words; empty if the screen's first line says it."""
    if not operator.problems:
        return []
    first = operator.problems[0]
    if first in FAILING and operator.row["last_failure_at"] is not None:
        return [_failure(operator.row, _BRIEF_ANSWER_COLUMNS)]
    fact = _fact(first, operator, columns)
    return [fact] if fact else []


def _fact(problem: Problem, operator: Operator, columns: int) -> str:  # noqa: C901 - one case for each problem
    row, lanes = operator.row, operator.lanes
    match problem:
        case Problem.DISABLED:
            return "disabled by enabled = false in its file"
        case Problem.PAUSED:
            return f"paused for {duration(row['paused_for_s'])} by {row['paused_by']}: {row['pause_reason']}"
        case Problem.NOT_SERVED:
            return "no running daemon has its file"
        case Problem.CIRCUIT_OPEN | Problem.CIRCUIT_HALF_OPEN:
            age = "" if row["circuit_for_s"] is None else f" for {duration(row['circuit_for_s'])}"
            return f"{problem}{age}{_cause(row, columns)}{_next_ping(row)}"
        case Problem.DEGRADED:
            return f"{row['health']}{_cause(row, columns)}"
        case Problem.UNREACHABLE:
            # With a failure before it, the sentence has the cause already.
            is_explained = any(other in FAILING for other in operator.problems[: operator.problems.index(problem)])
            cause = "" if is_explained else _cause(row, columns)
            return f"cannot be reached by daemon {', '.join(row['unreachable_from'])}{cause}"
        case Problem.BACKING_OFF:
            waits = [f"{lane['lane']} {duration(lane['backoff_for_s'])}" for lane in lanes if lane["backoff_for_s"]]
            return f"it sent Retry-After: waits for {', '.join(waits)}"
        case Problem.LATE:
            return f"a callback has been due for {duration(operator.oldest_due_s or 0.0)} and is not sent"
        case Problem.UNKNOWN_EFFECT:
            unfinished = count(operator.total("unknown_effect"), "unfinished callback")
            reason = next((lane["unknown_reason"] for lane in lanes if lane["unknown_reason"]), None)
            return f"{unfinished} may have been applied" + (f" ({reason_text(reason)})" if reason else "")
        case Problem.NEVER_ANSWERED:
            return "it has answered nothing yet"
        case Problem.NO_DAEMON:
            # The first line of the screen says it once for all.
            return ""


def _cause(row: Row, columns: int) -> str:
    """The last failure: what it was, how many there were in a row, and when."""
    if row["last_failure_at"] is None:
        return ""
    failures, when = row["consecutive_failures"], f"{duration(row['last_failure_s_ago'])} ago"
    if failures:
        when = f"{count(failures, 'failure')} in a row, the last {when}"
    return f": {_failure(row, max(_ANSWER_COLUMNS_MIN, columns - _SENTENCE_COLUMNS))} ({when})"


def _failure(row: Row, answer_columns: int) -> str:
    return failure_text(
        row["last_failure_reason"],
        row["last_failure_status"],
        row["last_failure_location"],
        shortened(row["last_failure_answer"] or "", answer_columns),
        row["last_failure_error"],
    )


def _next_ping(row: Row) -> str:
    if row["circuit"] != "open":
        return ""
    if not row["enabled"] or row["paused_at"] is not None:
        return "; no PING meanwhile"
    return "" if row["ping_in_s"] is None else f"; next PING in {duration(max(0.0, row['ping_in_s']))}"


def _short(seconds: float) -> str:
    """A duration without a space or a fraction, for the table."""
    text = duration(round(seconds) if seconds >= 1 else seconds)
    return text.replace(".0 s", " s").replace(" ", "")
