"""The public keys that a verification trusts: the log's own, and those of its witnesses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from predictu_dispatch.core.merkle.note import Algorithm, NoteError, VerifierKey

_FILE_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKeys:
    """One key signs the logs of all operators; in each log it is named as that log."""

    public_keys: tuple[bytes, ...] = ()
    witnesses: tuple[VerifierKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.public_keys)

    def of_log(self, origin: str) -> tuple[VerifierKey, ...]:
        """The keys under the name of this log."""
        return tuple(VerifierKey(origin, key) for key in self.public_keys)

    def with_more(self, other: TrustedKeys) -> TrustedKeys:
        return TrustedKeys(
            public_keys=tuple(dict.fromkeys((*self.public_keys, *other.public_keys))),
            witnesses=tuple(dict.fromkeys((*self.witnesses, *other.witnesses))),
        )


def read_given_keys(given: Iterable[str]) -> TrustedKeys:
    """Read vkeys, and files of vkeys or policies. Raises NoteError and OSError."""
    keys = TrustedKeys()
    for value in given:
        if "+" in value and not Path(value).exists():
            keys = keys.with_more(_of_line(value))
        else:
            keys = keys.with_more(_of_file(Path(value)))
    return keys


def _of_file(path: Path) -> TrustedKeys:
    with path.open("rb") as file:
        content = file.read(_FILE_BYTES_MAX)
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise NoteError(f"{path} is no text: it must have vkeys, one on each line, or be a policy") from None
    keys = TrustedKeys()
    for number, line in enumerate(lines, 1):
        try:
            keys = keys.with_more(_of_line(line))
        except NoteError as error:
            raise NoteError(f"{path}, line {number}: {error}") from None
    if not keys:
        raise NoteError(f"{path} has no key of a log")
    return keys


def _of_line(line: str) -> TrustedKeys:
    """Read a vkey, or a line of a policy (c2sp.org/tlog-policy); other lines have no key."""
    words = line.split()
    if not words or words[0].startswith("#") or words[0] in ("group", "quorum"):
        return TrustedKeys()
    if words[0] == "log":
        words = words[1:2]
    elif words[0] == "witness":
        words = words[2:3]
    if len(words) != 1:
        raise NoteError("not a vkey, and not a line of a policy")
    key = VerifierKey.parse(words[0])
    if key.algorithm is Algorithm.COSIGNATURE_V1:
        return TrustedKeys(witnesses=(key,))
    return TrustedKeys(public_keys=(key.public_key,))
