"""Draws the state diagrams of predictu_dispatch/DESIGN.md from the tables of core/specification.py.

`python -m predictu_dispatch.core.diagrams` prints them; tests/documents/test_docs.py compares them.
"""

from __future__ import annotations

from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState
from predictu_dispatch.core.specification import BET_RULES, CALLBACK_MOVES, BetRule


def callback_diagram() -> str:
    """Draw a callback's life as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> waiting", "    [*] --> ready"]
    lines += [f"    {old} --> {new}: {_label(why)}" for (old, new), why in CALLBACK_MOVES.items()]
    lines += [f"    {state} --> [*]" for state in CallbackState if state in FINAL]
    return "\n".join(lines)


def bet_diagram() -> str:
    """Draw a bet's life as a Mermaid state diagram.

    Refused events are left out, because they change nothing.
    """
    lines = ["stateDiagram-v2", "    [*] --> placing: BET_MAKE enqueued", "    [*] --> open: adopt_bet()"]
    for (state, event), rule in BET_RULES.items():
        if isinstance(rule, BetRule):
            what = f"{event} / {rule.terminal}" if rule.terminal else str(event)
            if rule.next_if_waiting is None:
                lines.append(f"    {state} --> {rule.next}: {_label(what)}")
            else:
                lines.append(f"    {state} --> {rule.next}: {_label(str(event))}, nothing waits")
                lines.append(f"    {state} --> {rule.next_if_waiting}: {_label(what)}")
    lines += [f"    {state} --> [*]" for state in (BetState.CLOSED, BetState.VOID)]
    return "\n".join(lines)


def _label(text: str) -> str:
    """Return a label without semicolon and colon, which Mermaid reads as markup."""
    return text.replace(";", ",").replace(":", ",")


if __name__ == "__main__":
    print(f"```mermaid\n{callback_diagram()}\n```\n\n```mermaid\n{bet_diagram()}\n```")  # noqa: T201 - printing is its use
