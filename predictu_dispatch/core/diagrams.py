"""The state diagrams of predictu_dispatch/DESIGN.md, drawn from the tables of lifecycle.py.

`python -m predictu_dispatch.core.diagrams` prints them; `tests/documents/test_docs.py` compares them.
"""

from __future__ import annotations

from predictu_dispatch.core.lifecycle import BET_RULES, CALLBACK_MOVES, FINAL, BetRule, BetState, CallbackState


def callback_diagram() -> str:
    """A callback's life as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> waiting", "    [*] --> ready"]
    lines += [f"    {old} --> {new}: {_plain(why)}" for (old, new), why in CALLBACK_MOVES.items()]
    lines += [f"    {state} --> [*]" for state in CallbackState if state in FINAL]
    return "\n".join(lines)


def bet_diagram() -> str:
    """A bet's life as a Mermaid state diagram; what is refused is left out, since it changes nothing."""
    lines = ["stateDiagram-v2", "    [*] --> placing: BET_MAKE enqueued", "    [*] --> open: adopt_bet()"]
    for (state, event), rule in BET_RULES.items():
        if isinstance(rule, BetRule):
            what = f"{event} / {rule.waiting}" if rule.waiting else str(event)
            if rule.next_if_waiting is None:
                lines.append(f"    {state} --> {rule.next}: {_plain(what)}")
            else:
                lines.append(f"    {state} --> {rule.next}: {_plain(str(event))}, nothing waits")
                lines.append(f"    {state} --> {rule.next_if_waiting}: {_plain(what)}")
    lines += [f"    {state} --> [*]" for state in (BetState.CLOSED, BetState.VOID)]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Mermaid ends a label at a semicolon and takes a second colon for markup."""
    return text.replace(";", ",").replace(":", ",")


if __name__ == "__main__":
    print(f"```mermaid\n{callback_diagram()}\n```\n\n```mermaid\n{bet_diagram()}\n```")  # noqa: T201 - printing is its use
