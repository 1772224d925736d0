"""Signed notes and their keys (c2sp.org/signed-note), and witnesses' cosignatures on them.

Two kinds of Ed25519 signature: 0x01 signs the text itself, 0x04 (c2sp.org/tlog-cosignature) signs
it together with the time at which a witness saw it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple

from nacl.bindings import crypto_sign, crypto_sign_BYTES, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError
from typing_extensions import override

NOTE_BYTES_MAX: Final = 1_000_000
SIGNATURES_MAX: Final = 100
"""Both limits are those of Go's golang.org/x/mod/sumdb/note."""
_TIME_MAX_S: Final = 2**63 - 1
_TIME_BYTES: Final = 8
_KEY_HASH_BYTES: Final = 4
_PUBLIC_KEY_BYTES: Final = 32
_LINE = re.compile(r"— ([^ ]+) ([^ ]+)")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


class NoteError(ValueError):
    """A note, a key or a signature is malformed, or no trusted key signed the note."""


class Algorithm(IntEnum):
    """The signature types that are understood."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name of its owner. `str()` gives its vkey."""

    name: str
    public_key: bytes
    algorithm: Algorithm = Algorithm.ED25519

    def __post_init__(self) -> None:
        check_name(self.name)
        if len(self.public_key) != _PUBLIC_KEY_BYTES:
            raise NoteError(f"an Ed25519 key has {_PUBLIC_KEY_BYTES} bytes, not {len(self.public_key)}")

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Read `name+key hash+key`. Raises NoteError also if the hash is not that of the key."""
        name, _, rest = vkey.partition("+")
        key_hash, _, encoded = rest.partition("+")
        key = from_base64(encoded)
        if key[:1] not in (b"\x01", b"\x04"):
            raise NoteError("the key is of no known type: 1 (Ed25519) or 4 (cosignature/v1)")
        parsed = cls(name, key[1:], Algorithm(key[0]))
        if parsed.key_hash.hex() != key_hash:
            raise NoteError(f"the key's hash is {parsed.key_hash.hex()}, but the vkey has {key_hash!r}")
        return parsed

    @classmethod
    def of_seed(cls, name: str, seed: bytes, algorithm: Algorithm = Algorithm.ED25519) -> VerifierKey:
        """Return the public half of a private key, given as its 32-byte seed (RFC 8032)."""
        return cls(name, crypto_sign_seed_keypair(seed)[0], algorithm)

    @property
    def key_hash(self) -> bytes:
        """The four bytes by which a signature names its key."""
        return sha256(self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public_key).digest()[:_KEY_HASH_BYTES]

    @override
    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{to_base64(bytes([self.algorithm]) + self.public_key)}"


class Signature(NamedTuple):
    """One signature of a note, not necessarily by a known key. `line` is as it is in the note."""

    name: str
    key_hash: bytes
    signature: bytes
    """The bytes after the key hash; a cosignature begins with its time."""

    @property
    def line(self) -> str:
        return f"— {self.name} {to_base64(self.key_hash + self.signature)}\n"


class VerifiedSignature(NamedTuple):
    """A verified signature, and the Unix time of a cosignature."""

    key: VerifierKey
    time_s: int | None


class Note(NamedTuple):
    """A note whose signatures are not verified."""

    text: str
    signatures: tuple[Signature, ...]


class VerifiedNote(NamedTuple):
    """A note that is signed by all of these, at least one."""

    text: str
    signatures: tuple[VerifiedSignature, ...]


def sign(text: str, name: str, seed: bytes) -> Signature:
    """Sign a note's text, which ends in a newline."""
    check_text(text)
    key = VerifierKey.of_seed(name, seed)
    return Signature(name, key.key_hash, _signature(text.encode(), seed))


def cosign(text: str, name: str, seed: bytes, time_s: int) -> Signature:
    """Sign a checkpoint's text as a witness that saw it at this time (cosignature/v1)."""
    check_text(text)
    if not 0 <= time_s <= _TIME_MAX_S:
        raise NoteError(f"a cosignature cannot have the time {time_s}")
    key = VerifierKey.of_seed(name, seed, Algorithm.COSIGNATURE_V1)
    signature = _signature(_cosigned(text, time_s), seed)
    return Signature(name, key.key_hash, time_s.to_bytes(_TIME_BYTES, "big") + signature)


def assemble(text: str, signatures: Iterable[Signature]) -> str:
    """Return the note: the text, an empty line and the signatures."""
    check_text(text)
    if not (lines := "".join([each.line for each in signatures])):
        raise NoteError("a note needs a signature")
    return f"{text}\n{lines}"


def with_lines(note: str, lines: Iterable[str]) -> str:
    """Return the note with further signature lines, each without its newline."""
    return note + "".join([f"{line}\n" for line in lines])


def parse(note: str | bytes) -> Note:
    """Split a note into text and signatures. Nothing is verified: do not use the text yet."""
    if len(note) > NOTE_BYTES_MAX:
        raise NoteError(f"the note has more than {NOTE_BYTES_MAX} bytes")
    if isinstance(note, bytes):
        try:
            note = note.decode()
        except UnicodeDecodeError:
            raise NoteError("the note is not UTF-8") from None
    text, empty_line, lines = note.rpartition("\n\n")
    if not empty_line:
        raise NoteError("the note has no empty line between its text and its signatures")
    check_text(text + "\n")
    return Note(text + "\n", parse_signatures(lines))


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """Read signature lines, each with its newline: a note's, or a witness's answer."""
    if not lines.endswith("\n"):
        raise NoteError("there is no signature, or the last one does not end in a newline")
    found = lines[:-1].split("\n")
    if len(found) > SIGNATURES_MAX:
        raise NoteError(f"the note has more than {SIGNATURES_MAX} signatures")
    return tuple(map(_parsed_line, found))


def verify(note: str | bytes, keys: Sequence[VerifierKey]) -> VerifiedNote:
    """Return the note's text and the signatures of `keys` on it.

    Signatures of other keys are ignored. Raises NoteError if no known key signed the note, or if a
    signature in the name of a known key does not verify.
    """
    text, signatures = parse(note)
    known = {(key.name, key.key_hash): key for key in keys}
    verified: dict[VerifierKey, VerifiedSignature] = {}
    for each in signatures:
        key = known.get((each.name, each.key_hash))
        if key is not None:
            signature = VerifiedSignature(key, _verified_time_s(text, each, key))
            verified.setdefault(key, signature)
    if not verified:
        raise NoteError("no known key signed the note")
    return VerifiedNote(text, tuple(verified.values()))


def check_text(text: str) -> None:
    """Raise NoteError if this cannot be the text of a note."""
    if not text.endswith("\n"):
        raise NoteError("the text of a note ends in a newline")
    _check_characters(text)


def check_name(name: str) -> None:
    """Raise NoteError if this cannot be the name of a key."""
    _check_characters(name)
    if not name or "+" in name or any(character.isspace() for character in name):
        raise NoteError(f"{name!r} cannot name a key: it must not be empty and have neither spaces nor a plus")


def to_base64(value: bytes) -> str:
    """Encode with padding, in one line (RFC 4648 section 4)."""
    return base64.b64encode(value).decode("ascii")


def from_base64(text: str) -> bytes:
    """Decode what `to_base64` writes and nothing else: one text for one value."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if to_base64(value) != text:
        raise NoteError("not canonical base64")
    return value


def _check_characters(text: str) -> None:
    if _CONTROL.search(text):
        raise NoteError("a note has no control characters besides newlines")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoteError("the text cannot be written in UTF-8") from None


def _parsed_line(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    if match is None:
        raise NoteError("a signature line is not an em dash, a name and a signature with one space between them")
    name, encoded = match.groups()
    check_name(name)
    value = from_base64(encoded)
    if len(value) <= _KEY_HASH_BYTES:
        raise NoteError(f"the signature of {name} is too short")
    return Signature(name, value[:_KEY_HASH_BYTES], value[_KEY_HASH_BYTES:])


def _verified_time_s(text: str, signature: Signature, key: VerifierKey) -> int | None:
    message, time_s, value = text.encode(), None, signature.signature
    if key.algorithm is Algorithm.COSIGNATURE_V1:
        time_s, value = int.from_bytes(value[:_TIME_BYTES], "big"), value[_TIME_BYTES:]
        message = _cosigned(text, time_s)
    if len(value) == crypto_sign_BYTES and (time_s or 0) <= _TIME_MAX_S:
        with suppress(BadSignatureError):
            crypto_sign_open(value + message, key.public_key)
            return time_s
    raise NoteError(f"the signature of {key.name} does not verify")


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _signature(message: bytes, seed: bytes) -> bytes:
    return crypto_sign(message, crypto_sign_seed_keypair(seed)[1])[:crypto_sign_BYTES]
