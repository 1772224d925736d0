"""Calls for the fuzzer of enqueue_callback: valid ones, single errors, and random ones."""

import uuid
from dataclasses import dataclass
from random import Random

from predictu_dispatch.core.methods import RULES, Method
from tests.support.harness import DISABLED, OPERATOR

AMOUNT_FORMATS = {OPERATOR: "subunits", DISABLED: "decimal"}
"""Both are enabled; they have different amount formats."""
FRESH, OPEN = "fresh", "open"
"""Placeholders that each example replaces by the id of an unknown or an open bet."""
PLACEMENT = "the placement"

BASE = {
    "player_id": '"p1"',
    "currency": '"EUR"',
    "amount": "500",
    "bet": '{"market_id":"m","outcome":"yes","odds":1.85,"shares":10,"price":0.54}',
    "rollback_of": f'"{PLACEMENT}"',
}
JSON_VALUES = [
    *("null", "true", "0", "1", "-1", "500", "500.0", "5e2", "0.5", "1e400", "1e-400", "1e20000", "9" * 18, "9" * 19),
    *('""', '"p1"', '"EUR"', '"USD"', '"eur"', '"JPY"', '"500"', '" "', '"\\u0001\\u001f"', '"\\ud83d\\ude00"', "[]"),
    *('"' + "x" * 200 + '"', '"' + "x" * 201 + '"', '"' + "€" * 200 + '"', '"\\u200b"', '"\'; drop"', '"é"', "{}"),
    *("[[[[]]]]", '{"a":[1,{"b":null}]}', '{"amount":7,"amount":8}', '{"market_id":1}', '"%s %I"', '"a\\"b\\\\c"'),
    *('"00000000-0000-0000-0000-000000000007"', '"not a uuid"', "123456789012345678901234567890.1234567890"),
]
ODD_VALUES = [
    *('"\\u0000"', '"\\ud800"', "1e200000", "1e-20000", "NaN", "01", "+1", "'x'", '"\n"', "", '"\\x"', "[1,]"),
    *("[" * 31 + "]" * 31, "[" * 33 + "]" * 33, "[" * 7_000 + "]" * 7_000, "[" * 30_000, '{"a":' * 40 + "1" + "}" * 40),
    *('"' + "x" * 65_000 + '"', '"' + "x" * 70_000 + '"', '"' + "€" * 30_000 + '"', "1e70000", "9" * 5_000),
]
KEYS = ["note", "amount", "currency", "bet_id", "player_id", "rollback_of", "", "é", "a\\\\b", "\\u0001", "$"]
TEXTS = [None, "", "{", "{}", "[]", "null", '"x"', "1", "{}{}", "\x00", "{\x00}", "[" * 100_000]
METHODS = [None, "", "bet_make", "BET_MAKE ", "B" * 300, "PING\x00", "é", "%s"]
OPERATORS = [None, "", "op_x", "OP_ABC123", "x" * 500, "op_abc123\x00", "é'%I", "op_abc123 "]
MOMENTS = [
    *("infinity", "-infinity", "epoch", "now", "tomorrow", "yesterday", "9999-12-31", "294276-12-31", "soon", ""),
    *("294277-01-01", "4714-11-24 BC", "2026-02-30", "2026-13-01", "24:00:00", "2031-01-01 00:00:00+99", "\x00"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of enqueue_callback. `spoilt` is its only invalid key, if known."""

    operator_id: str | None
    method: str | None
    params: str | None
    request_id: uuid.UUID | None
    expires_at: str | None
    spoilt: str | None = None


def call(rng: Random) -> Call:
    """Mostly one error or none, because with more the first check would hide the others."""
    methods = list(Method) if rng.randrange(12) else METHODS
    method = rng.choice(methods)
    params, spoilt = (
        _params(rng, Method(method)) if method in RULES and rng.randrange(12) else (rng.choice(TEXTS), None)
    )
    return Call(
        operator_id=rng.choice(list(AMOUNT_FORMATS) if rng.randrange(12) else OPERATORS),
        method=method,
        params=params,
        request_id=uuid.UUID(int=rng.randrange(40)) if not rng.randrange(6) else None,
        expires_at=rng.choice(MOMENTS) if not rng.randrange(6) else None,
        spoilt=spoilt,
    )


def _params(rng: Random, method: Method) -> tuple[str, str | None]:
    """Params of this method as JSON text, and their only invalid key, if known."""
    bet_id = rng.choice([FRESH] * 3 + [OPEN] * 4 + [f"b{n}" for n in range(9)])
    base = BASE | {"bet_id": f'"{bet_id}"'}
    pairs = [(key, base[key]) for key in RULES[method].required]
    spoilt = None
    match rng.choice(["right"] * 3 + ["spoilt"] * 3 + ["missing", "more", "odd", "twice"]):
        case "spoilt" if pairs:
            at = rng.randrange(len(pairs))
            spoilt = pairs[at][0]
            pairs[at] = (spoilt, rng.choice(JSON_VALUES))
        case "missing" if pairs:
            spoilt = pairs.pop(rng.randrange(len(pairs)))[0]
        case "more":
            pairs.append((rng.choice(KEYS), rng.choice(JSON_VALUES)))
        case "odd":
            pairs.append((rng.choice(KEYS), rng.choice(ODD_VALUES)))
        case "twice" if pairs:
            pairs.append((pairs[0][0], rng.choice(JSON_VALUES)))
        case _:
            pass
    if bet_id not in {FRESH, OPEN} or spoilt == "bet_id":
        # The params may also not match their bet, which another example may have changed.
        spoilt = None
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}", spoilt
