"""The database's functions and core/methods.py have the same table of methods."""

import re

from predictu_dispatch.core.methods import RULES, TERMINALS, Method, MethodRule
from tests.support.harness import connected
from tests.support.postgres import Database

PROTOCOL = {
    Method.PING: (None, "interactive", ()),
    Method.BALANCE: (None, "interactive", ("player_id", "currency")),
    Method.BET_MAKE: ("placement", "interactive", ("player_id", "currency", "amount", "bet_id", "bet")),
    Method.BET_WIN: ("terminal", "settlement", ("player_id", "currency", "amount", "bet_id")),
    Method.BET_LOSE: ("terminal", "settlement", ("player_id", "bet_id")),
    Method.BET_SELL: ("terminal", "settlement", ("player_id", "currency", "amount", "bet_id")),
    Method.BET_REFUND: ("terminal", "settlement", ("player_id", "currency", "amount", "bet_id")),
    Method.BET_ROLLBACK: ("terminal", "interactive", ("player_id", "currency", "amount", "bet_id", "rollback_of")),
}
"""PROTOCOL.md: the callback's part in a bet, its lane, its required keys."""


def part_in_a_bet(method: Method) -> str | None:
    if method in TERMINALS:
        return "terminal"
    return "placement" if method is Method.BET_MAKE else None


def test_the_table_in_code_equals_the_protocols() -> None:
    def row(method: Method, rule: MethodRule) -> tuple[str | None, str, tuple[str, ...]]:
        return part_in_a_bet(method), rule.lane, rule.required

    assert {method: row(method, rule) for method, rule in RULES.items()} == PROTOCOL


async def test_the_database_gives_every_method_its_lane_and_required_keys(database: Database) -> None:
    async with connected(database.owner, 1) as [owner]:
        rows = await owner.fetch(
            "select method, predictu_dispatch.lane_of(method) as lane,"
            "       predictu_dispatch.required_params(method) as required from unnest($1::text[]) as method",
            list(Method),
        )
    assert {row["method"]: (row["lane"], tuple(row["required"])) for row in rows} == {
        method: (rule.lane, rule.required) for method, rule in RULES.items()
    }


async def test_the_database_knows_no_other_method(database: Database) -> None:
    async with connected(database.owner, 1) as [owner]:
        assert [
            await owner.fetchval("select predictu_dispatch.lane_of($1)", name) for name in ("bet_win", "BET", "")
        ] == [None] * 3
        [guarded] = re.findall(
            r"new\.method not in \((.*?)\)\s+then 'its method is unknown'",
            await owner.fetchval("select prosrc from pg_proc where proname = 'guard_callback'"),
        )
    assert set(re.findall(r"'(\w+)'", guarded)) == set(Method)
