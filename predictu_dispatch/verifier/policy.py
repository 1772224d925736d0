"""Who is trusted: the keys of logs and witnesses, and how many of them (c2sp.org/tlog-policy)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .notes import COSIGNATURE_V1, ED25519, Key, parse_key

POLICY_BYTES_MAX: Final = 1 << 18
_NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Policy:
    """The known keys, and the quorum."""

    logs: tuple[Key, ...]
    witnesses: dict[str, Key]
    groups: dict[str, tuple[int, tuple[str, ...]]]
    quorum: str

    @property
    def keys(self) -> tuple[Key, ...]:
        return (*self.logs, *self.witnesses.values())

    def is_met(self, cosigners: set[Key]) -> bool:
        """True if these witnesses are a quorum."""
        return self.quorum == _NONE or self._has_witnessed(self.quorum, cosigners)

    def _has_witnessed(self, name: str, cosigners: set[Key]) -> bool:
        if name in self.witnesses:
            return self.witnesses[name] in cosigners
        needed, members = self.groups[name]
        return sum(self._has_witnessed(member, cosigners) for member in members) >= needed


def parse_policy(content: bytes) -> Policy:
    """Read a policy. Raises ValueError with the number of the line at fault."""
    if len(content) > POLICY_BYTES_MAX or re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", content):
        raise ValueError("the policy is too long or has a control character")
    # Bytes beyond ASCII are opaque; escapes keep different ones different.
    text = content.decode("utf-8", "surrogateescape")
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), start=1):
        items = line.replace("\t", " ").split(" ")
        words = [item for item in items if item]
        if not words or words[0].startswith("#"):
            continue
        try:
            reader.take(words)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return reader.policy()


class _Reader:
    def __init__(self) -> None:
        self._logs: list[Key] = []
        self._witnesses: dict[str, Key] = {}
        self._groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._members: set[str] = set()
        self._quorum: str | None = None

    def take(self, words: list[str]) -> None:
        kinds: dict[str, tuple[Callable[[list[str]], None], int, int]] = {
            "log": (self._log, 1, 2),
            "witness": (self._witness, 2, 3),
            "group": (self._group, 3, 10_000),
            "quorum": (self._set_quorum, 1, 1),
        }
        kind, *rest = words
        if kind not in kinds:
            raise ValueError(f"unknown word {kind[:40]!r}")
        take, least, most = kinds[kind]
        if not least <= len(rest) <= most:
            raise ValueError(f"a line {kind} has {least} to {most} words more")
        take(rest)

    def policy(self) -> Policy:
        if self._quorum is None:
            raise ValueError("there is no quorum line")
        return Policy(tuple(self._logs), self._witnesses, self._groups, self._quorum)

    def _log(self, words: list[str]) -> None:
        key = self._new_key(words[0], ED25519, self._logs)
        self._logs.append(key)

    def _witness(self, words: list[str]) -> None:
        self._check_new_name(words[0])
        self._witnesses[words[0]] = self._new_key(words[1], COSIGNATURE_V1, list(self._witnesses.values()))

    def _group(self, words: list[str]) -> None:
        name, count, *members = words
        self._check_new_name(name)
        for member in members:
            if member not in self._witnesses and member not in self._groups:
                raise ValueError(f"unknown witness or group {member!r}")
            if member in self._members:
                raise ValueError(f"{member!r} is in two groups, or twice in one")
            self._members.add(member)
        named = {"all": len(members), "any": 1}
        if count not in named and not re.fullmatch(r"[1-9][0-9]{0,4}", count):
            raise ValueError(f"{count[:40]!r} is neither all, any nor a number")
        needed = named.get(count) or int(count)
        if needed > len(members):
            raise ValueError(f"{needed} of {len(members)} members")
        self._groups[name] = (needed, tuple(members))

    def _set_quorum(self, words: list[str]) -> None:
        if self._quorum is not None:
            raise ValueError("there are two quorum lines")
        if words[0] not in (_NONE, *self._witnesses, *self._groups):
            raise ValueError(f"unknown witness or group {words[0]!r}")
        self._quorum = words[0]

    def _check_new_name(self, name: str) -> None:
        if name == _NONE or name in self._witnesses or name in self._groups:
            raise ValueError(f"the name {name!r} is used already")

    @staticmethod
    def _new_key(vkey: str, algorithm: int, others: list[Key]) -> Key:
        key = parse_key(vkey)
        if key.algorithm != algorithm:
            raise ValueError(f"the key of {key.name} is of type {key.algorithm}, not {algorithm}")
        if any(other.public_key == key.public_key for other in others):
            raise ValueError(f"the key of {key.name} is listed twice")
        return key
