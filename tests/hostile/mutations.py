"""Answers for the fuzzer: well-formed ones, the corpus, and mutations of both.

A seed determines each answer. This is faster than Hypothesis and yields a thousand different
answers per second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from tests.hostile.corpus import CORPUS
from tests.hostile.entry import Then, chunked, http

SEED_BYTES_MAX = 3_000
"""Longer answers are not mutated: it takes longer and finds nothing more."""
SEEDS = sorted({entry.wire for entry in CORPUS.values() if 0 < len(entry.wire) <= SEED_BYTES_MAX})


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """The answer to one request in pieces. `is_whole`: a complete answer without further bytes."""

    pieces: tuple[bytes, ...]
    then: Then
    is_whole: bool

    @property
    def wire(self) -> bytes:
        return b"".join(self.pieces)


NAMES = ['"balance"', '"transaction_id"', '"status"', '"st\\u0061tus"', '"x"', '""', '"\\u0000"', '"\\ud800"']
VALUES = [
    *("95000", "-1", "0.10", "1e400", "1E-400", "9" * 40, "9" * 5_000, "NaN", "-Infinity", "007", "-0", "1.0e+5"),
    *('"tx-1"', '""', '"\\u0000"', '"\\ud800x"', '"é€𝄞"', '"a\\nb"', '"a\nb"', '"' + "t" * 300 + '"', '"OK"'),
    '"' + "y" * 9_000 + '"',
    *("null", "true", "[]", "{}", '{"a":1,"a":2}', "[" * 50 + "]" * 50, '{"status":"OK"}'),
]
STATUSES = [
    *['"OK"'] * 6,
    *('"DUPLICATE"', '"DUPLICATE_TRANSACTION"', '"INSUFFICIENT_FUNDS"', '"PLAYER_NOT_FOUND"', '"BET_NOT_FOUND"'),
    *('"TRANSACTION_NOT_FOUND"', '"PENDING"', '"ok"', '""', "null", "200", '["OK"]', '"OK\\u0000"', '"\\ud83d"'),
]
CODES = [*[200] * 12, 201, 206, 299, 300, 302, 400, 401, 404, 409, 418, 422, 429, 499, 500, 503, 999]
HEADERS = [
    *(b"Content-Type: application/json", b"X-Bad: \xff\xfe", b"Set-Cookie: a=b", b"Retry-After: 1e9"),
    *(b"Content-Encoding: gzip", b"Connection: close", b"Connection: keep-alive", b"X-Empty:", b"Location: /x"),
]
INTERIM = [b"", b"", b"", b"HTTP/1.1 100 Go on\r\n\r\n", b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" * 3]
FRAGMENTS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\xff", b'"', b"{", b"}", b",", b"\\u0000", b"\x1b", b"0", b"-"),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n\r\n", b"f\r\n", b";x=y"),
    *(b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"x" * 9_000),
    *(b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"status":"OK",', b"[" * 2_000, b"eyJhbGciOiJFZERTQSJ9.eyJ9.sig"),
]


def _object(rng: Random) -> bytes:
    pairs = [('"status"', rng.choice(STATUSES))]
    pairs += [(rng.choice(NAMES), rng.choice(VALUES)) for _ in range(rng.randrange(4))]
    return ("{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}").encode()


def _whole(rng: Random) -> bytes:
    """A complete, well-formed answer with any body."""
    content = _object(rng) if rng.randrange(4) else rng.randbytes(rng.randrange(40))
    if rng.randrange(2):
        lines = rng.choices(HEADERS, k=rng.randrange(4))
        return rng.choice(INTERIM) + http(content, *lines, status=b"HTTP/1.1 %d Reason" % rng.choice(CODES))
    middle = len(content) // 2
    pieces = [piece for piece in (content[:middle], content[middle:]) if piece]
    return rng.choice(INTERIM) + chunked(*pieces)


Mutation = Callable[[bytes, int, int, bytes], bytes]
MUTATIONS: list[Mutation] = [
    lambda wire, at, _length, _fragment: wire[:at],
    lambda wire, at, _length, fragment: wire[:at] + fragment + wire[at:],
    lambda wire, at, _length, fragment: wire[:at] + fragment + wire[at:],
    lambda wire, at, _length, fragment: wire[:at] + fragment + wire[at + len(fragment) :],
    lambda wire, at, length, _fragment: wire[:at] + wire[at + length :],
    lambda wire, at, length, _fragment: wire[: at + length] + wire[at:],
]
"""Mutate by cutting, inserting (twice as often), overwriting, deleting or repeating."""


def _mutated(rng: Random, wire: bytes) -> bytes:
    for _ in range(rng.randint(1, 4)):
        fragment = rng.choice(FRAGMENTS) if rng.randrange(4) else rng.randbytes(rng.randint(1, 4))
        wire = rng.choice(MUTATIONS)(wire, rng.randint(0, len(wire)), rng.randint(1, 30), fragment)
    return wire


def random_answer(rng: Random, found: Sequence[bytes]) -> RawAnswer:
    """Whole answers, mutations of them, of the corpus and of `found`, or random bytes."""
    kind = rng.choice(["whole"] * 4 + ["mutated"] * 4 + ["seed"] * 4 + ["found"] * 3 + ["random"])
    match kind:
        case "whole":
            wire = _whole(rng)
        case "mutated":
            wire = _mutated(rng, _whole(rng))
        case "seed":
            wire = _mutated(rng, rng.choice(SEEDS))
        case "found":
            wire = _mutated(rng, rng.choice(found or SEEDS))
        case _:
            wire = rng.randbytes(rng.randrange(200))
    edges = [0, *sorted(rng.randint(0, len(wire)) for _ in range(rng.randrange(3))), len(wire)]
    # An incomplete answer costs a whole timeout.
    stays = [Then.GOES_ON] * (8 if kind == "whole" else 1)
    return RawAnswer(
        pieces=tuple(wire[start:end] for start, end in pairwise(edges) if end > start),
        then=rng.choice([Then.CLOSES] * 16 + [Then.RESETS] * 3 + stays),
        is_whole=kind == "whole",
    )
