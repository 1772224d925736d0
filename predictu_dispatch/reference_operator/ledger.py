"""What the wallet holds, for whoever reconciles: one consistent picture, read beside the running wallet."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def read_ledger(file: Path) -> dict[str, object]:
    """Balances, bets with their net, and counters, all of one moment; money in subunits.

    `balanced` is true while every balance is the sum of its transactions. A bet's `net` is what it did to the player's
    balance so far. `callbacks` counts the record by outcome, `statuses` by what was decided, `faults` by what was
    done on request.
    """
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as sql:
        sql.row_factory = sqlite3.Row
        # Without a transaction around them, the statements would see different moments.
        sql.execute("begin")
        return {
            "balanced": not _rows(sql, _UNBALANCED),
            "balances": _rows(sql, "select player_id, currency, balance from players order by player_id, currency"),
            "bets": _rows(sql, _BETS),
            "transactions": sql.execute("select count(*) from transactions").fetchone()[0],
            "callbacks": _counts(sql, "select outcome, count(*) from callback_record group by outcome"),
            "statuses": _counts(
                sql, "select status, count(*) from callback_record where status is not null group by status"
            ),
            "faults": _counts(
                sql, "select fault, count(*) from callback_record where fault is not null group by fault"
            ),
        }


_UNBALANCED = """
    select p.player_id from players p left join transactions t using (player_id, currency)
     group by p.player_id, p.currency having p.balance <> coalesce(sum(t.amount), 0) limit 1
"""

_BETS = """
    select b.bet_id, b.player_id, b.currency, b.amount, b.state, b.debit_request_id, b.ended_by,
           coalesce(sum(t.amount), 0) as net
      from bets b left join transactions t using (bet_id) group by b.bet_id order by b.bet_id
"""


def _rows(sql: sqlite3.Connection, statement: str) -> list[dict[str, object]]:
    return [dict(row) for row in sql.execute(statement)]


def _counts(sql: sqlite3.Connection, statement: str) -> dict[str, int]:
    return {row[0]: row[1] for row in sql.execute(statement)}
