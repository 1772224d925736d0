"""A log's policy (c2sp.org/tlog-policy): the signatures that a verifier should require."""

from __future__ import annotations

from collections.abc import Sequence

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.core.witness import Witness


def policy_text(log_keys: Sequence[VerifierKey], witnesses: Sequence[Witness]) -> str:
    """The policy: one of the log's keys, and more than half of the witnesses if there are any."""
    lines = [f"log {key}" for key in log_keys]
    lines += [f"witness {each.name} {each.key} {each.url}" for each in witnesses]
    if witnesses:
        names = " ".join(each.name for each in witnesses)
        lines += [f"group witnesses {len(witnesses) // 2 + 1} {names}", "quorum witnesses"]
    else:
        lines += ["quorum none"]
    return "".join(f"{line}\n" for line in lines)
