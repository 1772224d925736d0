"""Mutants that read the envelope wrongly."""

from __future__ import annotations

from tests.certification.mutants.mutant import Change, Mutant, before

_VERIFY, _CALLBACK, _RECEIVER = "verify.py", "callback.py", "receiver.py"
_DIGEST = "hashlib.sha256(body)"
_BET_ID = '_text(params, "bet_id")'
_PARAMS = '    currency = "" if method in _WITHOUT_CURRENCY'
"""Where the envelope has been read and `params` is an object."""


def _digest_of(rewritten: str) -> tuple[Change, ...]:
    return (
        Change(file=_VERIFY, old=_DIGEST, new=f"hashlib.sha256({rewritten}.encode())"),
        Change(file=_VERIFY, old="import hashlib\n", new="import hashlib\nimport json\nimport unicodedata\n"),
    )


ENVELOPE = (
    Mutant(
        name="digest-of-rewritten-json",
        wrong="The digest is made from JSON that was parsed and written again, in ASCII.",
        scenario="envelope-unicode",
        changes=_digest_of('json.dumps(json.loads(body), separators=(",", ":"))'),
    ),
    Mutant(
        name="digest-of-rewritten-numbers",
        wrong="The digest is made from JSON that was parsed and written again, with numbers as floats.",
        scenario="envelope-large-number",
        changes=_digest_of('json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False)'),
    ),
    Mutant(
        name="normalised-before-hashing",
        wrong="The body's Unicode is normalised before it is hashed.",
        scenario="envelope-unicode",
        changes=_digest_of('unicodedata.normalize("NFC", body.decode())'),
    ),
    Mutant(
        name="no-emoji",
        wrong="A text with a character above U+FFFF is refused, as by MySQL's utf8.",
        scenario="envelope-unicode",
        changes=(
            before(
                _CALLBACK,
                _PARAMS,
                "    if any(character > '\\uffff' for character in str(params)):\n"
                '        raise _BadBodyError("params: a character has four bytes")\n',
            ),
        ),
    ),
    Mutant(
        name="unknown-parameter-refused",
        wrong="A parameter that the operator does not know is refused.",
        scenario="envelope-unknown-param",
        changes=(
            before(
                _CALLBACK,
                _PARAMS,
                '    if set(params) - {"player_id", "currency", "amount", "bet_id", "bet", "rollback_of"}:\n'
                '        raise _BadBodyError("params: has unknown members")\n',
            ),
        ),
    ),
    Mutant(
        name="numbers-of-53-bits",
        wrong="A number above 2^53 is refused, also in a parameter that the operator does not use.",
        scenario="envelope-large-number",
        changes=(
            Change(
                file=_CALLBACK,
                old="parse_constant=_refuse_constant",
                new="parse_constant=_refuse_constant, parse_int=_safe_integer",
            ),
            before(
                _CALLBACK,
                "def _text(",
                "def _safe_integer(digits: str) -> int:\n"
                "    if abs(int(digits)) > 2**53:\n"
                '        raise _BadBodyError("body: a number is too large")\n'
                "    return int(digits)\n\n\n",
            ),
        ),
    ),
    Mutant(
        name="parameters-by-position",
        wrong="The parameters are read by their position.",
        scenario="envelope-key-order",
        changes=(
            before(
                _CALLBACK,
                _PARAMS,
                '    if params and list(params)[0] != "player_id":\n'
                '        raise _BadBodyError("params: the first is not player_id")\n',
            ),
        ),
    ),
    Mutant(
        name="body-limit-of-8-kb",
        wrong="A body above 8 kB is refused.",
        scenario="envelope-large-body",
        changes=(Change(file=_RECEIVER, old="BODY_BYTES_MAX = 256 * 1024", new="BODY_BYTES_MAX = 8 * 1024"),),
    ),
    Mutant(
        name="ids-cut-off",
        wrong="A bet_id is cut off after 100 characters, as by a column of MySQL without strict mode.",
        scenario="envelope-ids",
        changes=(Change(file=_CALLBACK, old=_BET_ID, new=f"{_BET_ID}[:100]"),),
    ),
    Mutant(
        name="ids-without-case",
        wrong="A bet_id is compared without case, as by the default collation of MySQL.",
        scenario="envelope-ids",
        changes=(Change(file=_CALLBACK, old=_BET_ID, new=f"{_BET_ID}.lower()"),),
    ),
    Mutant(
        name="decimals-as-floats",
        wrong="Decimal amounts are multiplied as floats and cut, so 0.29 EUR is 28 cents.",
        scenario="envelope-decimal-digits",
        amount_format="decimal",
        changes=(
            Change(
                file=_CALLBACK,
                old="subunits = money.to_subunits(value, currency)",
                new="subunits = int(float(value) * 10 ** money.minor_digits(currency))",
            ),
        ),
    ),
)
