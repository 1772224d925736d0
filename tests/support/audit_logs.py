"""A log in memory, signed with its own key: what a witness gets from it."""

from hashlib import sha256

from predictu_dispatch.core.merkle.checkpoint import Checkpoint, witness_request
from predictu_dispatch.core.merkle.note import VerifierKey, assemble, sign
from predictu_dispatch.core.merkle.tree import append, consistency_proof, leaf_hash, root


class GrowingLog:
    """A log whose entries are `NAME-0`, `NAME-1` and so on; another name is another history."""

    def __init__(self, origin: str, name: str = "entry", *, seed: bytes = b"") -> None:
        self.origin = origin
        self.name = name
        self.seed = seed or sha256(origin.encode()).digest()
        self.vkey = str(VerifierKey.of_seed(origin, self.seed))

    def tile(self, level: int, number: int, width: int) -> bytes:
        """The tile, computed from the entries of its level."""
        if level == 0:
            first = number * 256
            return b"".join(leaf_hash(f"{self.name}-{first + at}".encode()) for at in range(width))
        return b"".join(append(0, {}, self.tile(level - 1, number * 256 + at, 256)).root for at in range(width))

    def text(self, size: int) -> str:
        return Checkpoint(self.origin, size, root(size, self.tile)).text()

    def checkpoint(self, size: int) -> str:
        text = self.text(size)
        return assemble(text, [sign(text, self.origin, self.seed)])

    def request(self, old_size: int, size: int) -> str:
        """The body of add-checkpoint."""
        return witness_request(old_size, consistency_proof(old_size, size, self.tile), self.checkpoint(size))
