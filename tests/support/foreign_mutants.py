"""Altered claims about logs, which the foreign verifier must refuse."""

import base64
import random
from collections.abc import Iterator, Sequence

from tests.support.foreign_verifier import Claim


def mutants(claims: Sequence[Claim], rng: random.Random) -> Iterator[tuple[str, Claim]]:
    """Yield accepted claims after one change, each with what was changed, without end.

    The claims must be of several logs; each must have two checkpoints or more.
    """
    included = [claim for claim in claims if claim["kind"] == "inclusion"]
    grown = [claim for claim in claims if claim["kind"] == "consistency"]
    notes = {claim["note"]: claim["vkey"] for claim in claims}
    while True:
        claim, growth = rng.choice(included), rng.choice(grown)
        note, vkey, index, size = claim["note"], claim["vkey"], claim["index"], size_of(claim["note"])
        of_same = [other for other, key in notes.items() if key == vkey and other != note]
        of_others = [other for other, key in notes.items() if key != vkey]
        not_of_growth = [other for other, key in notes.items() if key != growth["vkey"]]
        yield "entry", {**claim, "entry": flipped(claim["entry"], rng)}
        another = rng.choice([one for one in included if one["entry"] != claim["entry"]])
        yield "entry of another place", {**claim, "entry": another["entry"]}
        yield "index", {**claim, "index": rng.choice([index ^ 1, index + 1, index - 1, size, -1, 2**40])}
        yield "size", {**claim, "note": note.replace(f"\n{size}\n", f"\n{size + 1}\n")}
        yield "checkpoint of another size", {**claim, "note": rng.choice(of_same)}
        yield "checkpoint of another log", {**claim, "note": rng.choice(of_others)}
        yield "root of another size", {**claim, "note": text_of(rng.choice(of_same)) + note.partition("\n\n")[2]}
        yield "signature", {**growth, "note": altered_signature(growth["note"], rng)}
        yield "backwards", {**growth, "note": growth["old_note"], "old_note": growth["note"]}
        yield "began with another log", {**growth, "old_note": rng.choice(not_of_growth)}
        for name, altered in (("inclusion", claim), ("consistency", growth)):
            proof = altered["proof"]
            yield f"{name}: one more hash", {**altered, "proof": [*proof, base64.b64encode(bytes(32)).decode()]}
            if proof:
                place = rng.randrange(len(proof))
                changed = [*proof[:place], flipped(proof[place], rng), *proof[place + 1 :]]
                yield f"{name}: hash", {**altered, "proof": changed}
                yield f"{name}: one hash fewer", {**altered, "proof": proof[:place] + proof[place + 1 :]}


def size_of(note: str) -> int:
    return int(note.split("\n")[1])


def text_of(note: str) -> str:
    """A note without its signatures, up to and with the empty line."""
    return note.partition("\n\n")[0] + "\n\n"


def flipped(encoded: str, rng: random.Random) -> str:
    """A bit of these bytes, which are in base64, is flipped."""
    value = bytearray(base64.b64decode(encoded))
    value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
    return base64.b64encode(value).decode()


def altered_signature(note: str, rng: random.Random, *, line: int = -1) -> str:
    """A bit of the signature in this line is flipped, not of its key hash."""
    lines = note[:-1].split("\n")
    before, _, encoded = lines[line].rpartition(" ")
    value = bytearray(base64.b64decode(encoded))
    value[rng.randrange(4, len(value))] ^= 1 << rng.randrange(8)
    lines[line] = f"{before} {base64.b64encode(value).decode()}"
    return "\n".join([*lines, ""])
