"""Signed notes, checkpoints, cosignatures and proof files, as C2SP specifies them.

c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature, c2sp.org/tlog-proof.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from .merkle import HASH_BYTES, PROOF_HASHES_MAX

ED25519, COSIGNATURE_V1 = 1, 4
NOTE_BYTES_MAX: Final = 1 << 20
SIGNATURES_MAX: Final = 100
_PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SIGNATURE: Final = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/=]+)")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key of a log or a witness."""

    name: str
    algorithm: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        named = self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public_key
        return sha256(named).digest()[:4]

    @property
    def text(self) -> str:
        """Its vkey: name, key id and key."""
        encoded = base64.b64encode(bytes([self.algorithm]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log signed, and which known keys signed it."""

    origin: str
    size: int
    root: bytes
    log_keys: tuple[Key, ...]
    cosigned_at: dict[Key, int]
    """When each known witness cosigned it, in Unix time."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A `.tlog-proof`: nothing in it is verified."""

    index: int
    hashes: tuple[bytes, ...]
    note: str


def parse_key(vkey: str) -> Key:
    """Read `name+key id+key`. Raises ValueError."""
    name, _, rest = vkey.partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = from_base64(encoded)
    if not name or re.search(r"\s", name):
        raise ValueError("a key's name is empty or has a space")
    if len(raw) != 1 + 32 or raw[0] not in (ED25519, COSIGNATURE_V1):
        raise ValueError(f"the key of {name} is no Ed25519 key of type 1 or 4")
    key = Key(name, raw[0], raw[1:])
    if key.key_id.hex() != key_id:
        raise ValueError(f"the key of {name} has the id {key.key_id.hex()}, not {key_id}")
    return key


def open_checkpoint(note: str, keys: tuple[Key, ...], *, is_witness_enough: bool = False) -> Checkpoint:
    """Verify a checkpoint with these keys. Raises ValueError, also if its log did not sign it.

    `is_witness_enough`: a known witness's cosignature stands in for the log's signature.

    A signature by one of the keys that is wrong refuses the note; those of other keys are ignored.
    """
    if len(note) > NOTE_BYTES_MAX or _CONTROL.search(note):
        raise ValueError("the checkpoint is too long or has a control character")
    head, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise ValueError("the checkpoint has no signatures")
    text = head + "\n"
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise ValueError(f"the checkpoint has more than {SIGNATURES_MAX} signatures")
    origin, size, root = _checkpoint(text)
    known = {(key.name, key.key_id): key for key in keys}
    signatures = [(known.get((name, raw[:4])), raw) for name, raw in map(_signature, lines)]
    signed = [(key, raw) for key, raw in signatures if key is not None]
    cosigned_at = {key: _verified_time(key, text, raw[4:]) for key, raw in signed if key.algorithm == COSIGNATURE_V1}
    by_log = [(key, raw) for key, raw in signed if key.algorithm == ED25519]
    for key, raw in by_log:
        _verify(key, text.encode(), raw[4:])
    log_keys = tuple(key for key, _ in by_log if key.name == origin)
    if not log_keys and not (is_witness_enough and cosigned_at):
        raise ValueError(f"no known key of the log {origin} signed its checkpoint")
    return Checkpoint(origin, size, root, log_keys, cosigned_at)


def parse_proof(content: bytes) -> Proof:
    """Read a `.tlog-proof`. Raises ValueError."""
    if len(content) > NOTE_BYTES_MAX:
        raise ValueError("the proof is too long")
    text = content.decode()
    head, _, note = text.partition("\n\n")
    header, *lines = head.split("\n")
    if header != _PROOF_HEADER:
        raise ValueError(f"the first line is not {_PROOF_HEADER}")
    if lines and lines[0].startswith("extra "):
        raise ValueError("it has an extra line, and no bundle has one")
    if not lines or not lines[0].startswith("index "):
        raise ValueError("there is no index line")
    index = _number(lines[0].removeprefix("index "))
    if len(lines) - 1 > PROOF_HASHES_MAX:
        raise ValueError(f"the proof has more than {PROOF_HASHES_MAX} hashes")
    return Proof(index, tuple(map(_hash, lines[1:])), note)


def from_base64(text: str) -> bytes:
    """Decode strictly: one encoding for one value."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("malformed base64") from None
    if base64.b64encode(raw).decode() != text:
        raise ValueError("malformed base64")
    return raw


def _signature(line: str) -> tuple[str, bytes]:
    matched = _SIGNATURE.fullmatch(line)
    if matched is None:
        raise ValueError("the checkpoint has a malformed signature line")
    return matched[1], from_base64(matched[2])


def _checkpoint(text: str) -> tuple[str, int, bytes]:
    lines = text[:-1].split("\n")
    if len(lines) != 3 or not lines[0]:  # noqa: PLR2004 - origin, size, root
        raise ValueError("a checkpoint of ours has three lines: origin, size, root")
    return lines[0], _number(lines[1]), _hash(lines[2])


def _verified_time(key: Key, text: str, signature: bytes) -> int:
    if len(signature) != 8 + 64:
        raise ValueError(f"the cosignature of {key.name} does not have 72 bytes")
    time_s = int.from_bytes(signature[:8], "big")
    _verify(key, f"cosignature/v1\ntime {time_s}\n{text}".encode(), signature[8:])
    return time_s


def _verify(key: Key, message: bytes, signature: bytes) -> None:
    try:
        VerifyKey(key.public_key).verify(message, signature)
    except (BadSignatureError, ValueError):
        raise ValueError(f"the signature of {key.name} on the checkpoint is wrong") from None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) >= 2**63:
        raise ValueError(f"{text[:40]!r} is no size or index")
    return int(text)


def _hash(text: str) -> bytes:
    raw = from_base64(text)
    if len(raw) != HASH_BYTES:
        raise ValueError(f"a hash has {len(raw)} bytes, not {HASH_BYTES}")
    return raw
