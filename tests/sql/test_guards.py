"""The guard functions list exactly the moves of core/specification.py.

tests/core/test_lifecycle.py tries every pair of states against the triggers; this names the file
that differs.
"""

import re
from pathlib import Path

from predictu_dispatch.core.specification import CALLBACK_MOVES, bet_moves
from predictu_dispatch.edge.postgres.sql_files import definitions

_STATES = r"(?:= '(?P<{0}>\w+)'|in \((?P<{0}_list>[^)]*)\))"
_MOVE = re.compile(rf"\(old\.state {_STATES.format('old')} and new\.state {_STATES.format('new')}")


def listed_moves(name: str) -> set[tuple[str, str]]:
    """Returns the pairs of states that the guard function in this file lists."""
    [sql] = [one.sql for one in definitions() if one.name == name]
    allowed = sql[sql.index("old.state <> new.state and not (") : sql.index("\n        ))\n")]

    def states(match: re.Match[str], key: str) -> list[str]:
        return [match[key]] if match[key] else re.findall(r"'(\w+)'", match[f"{key}_list"])

    return {
        (old, new) for match in _MOVE.finditer(allowed) for old in states(match, "old") for new in states(match, "new")
    }


def test_guard_callback_move_lists_exactly_the_callback_moves() -> None:
    assert listed_moves("guards/guard_callback_move.sql") == set(CALLBACK_MOVES)


def test_guard_bet_move_lists_exactly_the_bet_moves() -> None:
    assert listed_moves("guards/guard_bet_move.sql") == bet_moves()


def test_every_definition_file_is_named_after_what_it_defines() -> None:
    """So that a function is found by its name, and each has one current definition."""
    for definition in definitions():
        kind = "view" if definition.is_view else "function"
        defined = re.findall(rf"^create or replace {kind} predictu_dispatch\.(\w+)", definition.sql, re.MULTILINE)
        assert defined == [Path(definition.name).stem], definition.name
        assert f" predictu_dispatch.{defined[0]} from public;" in definition.sql, definition.name
