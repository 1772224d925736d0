"""Reads a checkpoint of Predictu's audit log, and checks that the log has only grown.

The formats are those of c2sp.org: signed-note, tlog-checkpoint and tlog-witness. A consistency
proof (RFC 6962 section 2.1.2) is checked as RFC 9162 section 2.1.4.2 says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HASH_BYTES = 32
KEY_ID_BYTES = 4
PROOF_HASHES_MAX = 63
SIGNATURES_MAX = 100
ED25519 = 1
"""The signature type of a log's key."""
EMPTY_ROOT = hashlib.sha256(b"").digest()
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_SIGNATURE = re.compile(r"— ([^ ]+) ([^ ]+)")


class CheckpointError(ValueError):
    """It is not in the format; the message says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKey:
    """A public key of a log; its name is the log's name."""

    name: str
    key_id: bytes
    public_key: Ed25519PublicKey

    @classmethod
    def parse(cls, vkey: str) -> LogKey:
        """Reads `name+id+key`. Raises CheckpointError."""
        name, _, rest = vkey.partition("+")
        key_id, _, encoded = rest.partition("+")
        key = _from_base64(encoded)
        if not name or key[:1] != bytes([ED25519]) or len(key) != 1 + HASH_BYTES:
            raise CheckpointError(f'"{vkey}" is not of the form name+id+key with an Ed25519 key')
        if key_id != key_id_of(name, key).hex():
            raise CheckpointError(f'"{vkey}": the id is not that of the name and the key')
        return cls(name=name, key_id=bytes.fromhex(key_id), public_key=Ed25519PublicKey.from_public_bytes(key[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The body of `add-checkpoint`. Nothing in it is verified."""

    old_size: int
    proof: tuple[bytes, ...]
    text: str
    """What the log signed: origin, size and root, a line each, and perhaps further lines."""
    origin: str
    size: int
    root: bytes
    signatures: tuple[tuple[str, bytes], ...]
    """Name of the key; its id and the signature."""

    @classmethod
    def parse(cls, body: bytes) -> Submission:
        """Raises CheckpointError."""
        try:
            head, _, note = body.decode().partition("\n\n")
        except UnicodeDecodeError:
            raise CheckpointError("the body is not UTF-8") from None
        old, *proof = head.split("\n")
        if not old.startswith("old ") or len(proof) > PROOF_HASHES_MAX:
            raise CheckpointError(f"the body does not begin with an old line and up to {PROOF_HASHES_MAX} hashes")
        text, separator, signatures = note.rpartition("\n\n")
        lines = text.split("\n")
        if not separator or len(lines) < 3 or not all(lines):  # noqa: PLR2004 - origin, size, root
            raise CheckpointError("there is no checkpoint with an origin, a size and a root")
        return cls(
            old_size=_number(old.removeprefix("old ")),
            proof=tuple(map(_hash, proof)),
            text=text + "\n",
            origin=lines[0],
            size=_number(lines[1]),
            root=_hash(lines[2]),
            signatures=tuple(_signatures(signatures)),
        )

    def is_signed_by(self, keys: Iterable[LogKey]) -> bool:
        """Whether one of these keys signed the checkpoint; other signatures are ignored."""
        known = {(key.name, key.key_id): key for key in keys}
        for name, value in self.signatures:
            key = known.get((name, value[:KEY_ID_BYTES]))
            if key is None:
                continue
            try:
                key.public_key.verify(value[KEY_ID_BYTES:], self.text.encode())
            except InvalidSignature:
                continue
            return True
        return False


def has_grown(old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the proof shows that the larger tree begins with the smaller one, 0 < old < new."""
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    # An old tree whose size is a power of two is a node of the new one, and the proof omits it.
    hashes = [old_root, *proof] if node == 0 else list(proof)
    if not hashes:
        return False
    old_computed = computed = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old_computed, computed = _parent(sibling, old_computed), _parent(sibling, computed)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            computed = _parent(computed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and (old_computed, computed) == (old_root, root)


def key_id_of(name: str, typed_key: bytes) -> bytes:
    """The four bytes that name a key; the key's first byte is its signature type."""
    return hashlib.sha256(name.encode() + b"\n" + typed_key).digest()[:KEY_ID_BYTES]


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _signatures(lines: str) -> Iterable[tuple[str, bytes]]:
    found = lines.removesuffix("\n").split("\n")
    if not lines.endswith("\n") or len(found) > SIGNATURES_MAX:
        raise CheckpointError(f"there are not 1 to {SIGNATURES_MAX} signature lines")
    for line in found:
        match = _SIGNATURE.fullmatch(line)
        if match is None:
            raise CheckpointError("a signature line is not an em dash, a name and a signature")
        yield match[1], _from_base64(match[2])


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or int(text) >= 2**63:
        raise CheckpointError(f'"{text[:40]}" is not a decimal number below 2^63')
    return int(text)


def _hash(text: str) -> bytes:
    value = _from_base64(text)
    if len(value) != HASH_BYTES:
        raise CheckpointError(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
    return value


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise CheckpointError(f'"{text[:40]}" is not base64') from None
