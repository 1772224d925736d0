"""The sender's keys: since when the log has each, and when it was retired."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .archive import RefusedError
from .entries import Entry
from .manifest import KEY_FILES, Folder
from .records import Log, Place, Statement, UnprovedError, Verdict
from .tokens import PublicKey, parse_jwk

_JWK_BYTES_MAX = 16_384


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key with what the log says about it."""

    public_key: PublicKey
    first_seen_at: str
    retired_at: str | None
    place: Place | None
    """Where the log has it; None if that is not proved."""


class Keyring:
    """The keys of a bundle, by kid."""

    def __init__(self) -> None:
        self.known: dict[str, KnownKey] = {}
        self.faults: dict[str, str] = {}
        """Why a key that is in the bundle proves nothing."""


def read_keys(log: Log, folders: tuple[Folder, ...], keyring: Keyring) -> Iterator[Statement]:
    """Verify each key's JWK and entries, and fill the keyring."""
    for folder in folders:
        kid = folder.path.partition("/")[2]
        try:
            known = _known_key(log, folder, kid)
        except ValueError as error:
            keyring.faults[kid] = str(error)
            text = f"The log has the key {kid}, with which requests were signed."
            yield Statement(Verdict.CONTRADICTED, text, folder.path, str(error))
            continue
        keyring.known[kid] = known
        until = f", retired at {known.retired_at}" if known.retired_at else ""
        if known.place is None:
            text = f"The key {kid} has been in use since {known.first_seen_at}{until}."
            yield Statement(Verdict.RECORD, text, folder.path)
        else:
            at = f"entry {known.place.index}, size {known.place.checkpoint.size}"
            text = f"By {at}, the log has had the key {kid} since {known.first_seen_at}{until}."
            yield Statement(Verdict.PROVED, text, folder.path)


def _known_key(log: Log, folder: Folder, kid: str) -> KnownKey:
    first_seen = log.entry(folder, "first_seen", "key")
    path = folder.file("jwk.json")
    if path not in log.archive.members:
        raise RefusedError(path, "it is missing")
    log.check_files(folder, first_seen, KEY_FILES)
    public_key = parse_jwk(log.archive.read(path, _JWK_BYTES_MAX))
    if public_key.kid != kid:
        raise ValueError(f"{path} is the key {public_key.kid}")
    _check(first_seen, "first_seen", public_key)
    place = _place(log, folder, "first_seen", first_seen)
    if "retired" not in folder.entries:
        return KnownKey(public_key, first_seen["at"], None, place)
    retired = log.entry(folder, "retired", "key")
    _check(retired, "retired", public_key)
    if retired["public_jwk_sha256"] != first_seen["public_jwk_sha256"]:
        raise ValueError("the two entries of the key are about different JWKs")
    _place(log, folder, "retired", retired)
    return KnownKey(public_key, first_seen["at"], retired["at"], place)


def _place(log: Log, folder: Folder, event: str, entry: Entry) -> Place | None:
    if event not in folder.sealed:
        return None
    try:
        return log.place(folder, event, entry)
    except UnprovedError:
        return None


def _check(entry: Entry, event: str, key: PublicKey) -> None:
    if (entry["event"], entry["kid"], entry["algorithm"]) != (event, key.kid, key.algorithm):
        raise ValueError(
            f"the entry is {entry['event']} of the key {entry['kid']} with {entry['algorithm']},"
            f" not {event} of {key.kid} with {key.algorithm}"
        )
