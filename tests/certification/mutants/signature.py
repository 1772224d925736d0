"""Mutants that read tokens wrongly, or read the envelope wrongly."""

from __future__ import annotations

from tests.certification.mutants.mutant import Change, Mutant, before

_VERIFY, _CALLBACK, _RECEIVER = "verify.py", "callback.py", "receiver.py"
_OPTIONS = 'options={"require": required}'
_ARRIVED = "        body, verification = await self._read(request)\n"
_DIGEST = "hashlib.sha256(body)"


def _options(added: str) -> tuple[Change, ...]:
    return (Change(file=_VERIFY, old=_OPTIONS, new=f'options={{"require": required, {added}}}'),)


def _accepts(condition: str) -> Change:
    """Take the claims unverified if the condition on the token's header holds."""
    return Change(
        file=_VERIFY,
        old="claims = _verified_claims(",
        new='claims = jwt.decode(token, options={"verify_signature": False}) if '
        f"(lambda header: {condition})(jwt.get_unverified_header(token)) else _verified_claims(",
    )


def _digest_of(rewritten: str) -> tuple[Change, ...]:
    return (
        Change(file=_VERIFY, old=_DIGEST, new=f"hashlib.sha256({rewritten}.encode())"),
        Change(file=_VERIFY, old="import hashlib\n", new="import hashlib\nimport json\nimport unicodedata\n"),
    )


def _on_arrival(added: str) -> tuple[Change, ...]:
    """Add statements that know the `unverified` callback and whether it is `unauthorized`."""
    return (
        Change(
            file=_RECEIVER,
            old=_ARRIVED,
            new=f"{_ARRIVED}"
            "        from .callback import read_callback\n"
            "        unverified = read_callback(\n"
            "            body or b'', operator_id=self.settings.operator_id, money=self.settings.money\n"
            "        )\n"
            "        unauthorized = getattr(verification.content, 'status', '') == Status.UNAUTHORIZED\n"
            f"{added}",
        ),
        before(_RECEIVER, "def _unread(", "_SEEN: dict[str, Verification] = {}\n\n\n"),
    )


_HMAC = '''
def _accepts_hmac(token: str, keyring: Keyring) -> bool:
    """Looks up the algorithm in the token, and verifies with the public key as it is in the file."""
    import base64, hmac
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    signed, _, signature = token.rpartition(".")
    for key in keyring.keys.values():
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for secret in (pem, pem.strip()):
            mac = hmac.digest(secret, signed.encode(), "sha256")
            if base64.urlsafe_b64encode(mac).rstrip(b"=").decode() == signature:
                return True
    return False


'''

SIGNATURE = (
    Mutant(
        name="no-token-needed",
        wrong="A request without an Authorization header is booked.",
        scenario="signature-missing",
        changes=(
            before(
                _VERIFY,
                "    claims = verify_token(",
                "    if not authorization:\n"
                "        content = read_callback(body, operator_id=operator_id, money=money)\n"
                "        return Verification(signature=VERIFIED, content=content)\n",
            ),
        ),
    ),
    Mutant(
        name="signature-not-verified",
        wrong="The token is decoded, and its signature is not verified.",
        scenario="signature-wrong-key",
        changes=_options('"verify_signature": False, "verify_exp": True, "verify_iat": True, "verify_sub": True'),
    ),
    Mutant(
        name="unknown-kid-not-verified",
        wrong="If the token's kid is unknown, its signature is not verified.",
        scenario="signature-unknown-kid",
        changes=(_accepts('header["alg"] == keyring.algorithm and header.get("kid") not in keyring.keys'),),
    ),
    Mutant(
        name="first-key-only",
        wrong="The kid is ignored and the first key verifies every token, so a rotation stops all callbacks.",
        scenario="signature-next-key",
        changes=(Change(file=_VERIFY, old="return keyring.keys[kid]", new="return next(iter(keyring.keys.values()))"),),
    ),
    Mutant(
        name="alg-none",
        wrong="The token chooses its algorithm, and none is one of them.",
        scenario="signature-alg-none",
        changes=(_accepts('header["alg"] == "none"'),),
    ),
    Mutant(
        name="hmac-with-the-public-key",
        wrong="The token chooses its algorithm, and HS256 takes the public key as its secret.",
        scenario="signature-hs256",
        changes=(
            _accepts('header["alg"] == "HS256" and _accepts_hmac(token, keyring)'),
            before(_VERIFY, "def _bearer(", _HMAC.lstrip("\n")),
        ),
    ),
    Mutant(
        name="digest-not-compared",
        wrong="The token's digest is not compared with the body.",
        scenario="signature-tampered-body",
        changes=(Change(file=_VERIFY, old=_DIGEST + ".hexdigest()", new='claims["digest"]'),),
    ),
    Mutant(
        name="other-operators-token",
        wrong="A token for another operator is accepted.",
        scenario="signature-other-operator",
        changes=(Change(file=_VERIFY, old="            subject=operator_id,\n", new=""),),
    ),
    Mutant(
        name="method-not-compared",
        wrong="The token's method is not compared with the body's.",
        scenario="signature-other-method",
        changes=(Change(file=_VERIFY, old="if claims.method != callback.method:", new="if False:"),),
    ),
    Mutant(
        name="jti-not-compared",
        wrong="The token's jti is not compared with the body's request_id.",
        scenario="signature-other-request-id",
        changes=(Change(file=_VERIFY, old="if claims.jti != callback.request_id and", new="if False and"),),
    ),
    Mutant(
        name="expired-token",
        wrong="A token is valid for ever.",
        scenario="signature-expired",
        changes=_options('"verify_exp": False'),
    ),
    Mutant(
        name="token-from-the-future",
        wrong="A token is valid before it was issued.",
        scenario="signature-from-the-future",
        changes=_options('"verify_iat": False'),
    ),
    Mutant(
        name="jti-before-idempotency",
        wrong="A jti that was seen before is refused with 401, so a retry never learns that its debit was booked.",
        scenario="signature-used-jti",
        changes=(
            Change(
                file=_VERIFY,
                old="    fault = check_binding(claims, callback)\n",
                new="    fault = check_binding(claims, callback)\n"
                "    if fault is None and claims.jti in _SEEN:\n"
                '        fault = _unauthorized("token claims: this jti was used before")\n'
                "    _SEEN.add(claims.jti)\n",
            ),
            before(_VERIFY, "def _bearer(", "_SEEN: set[str] = set()\n\n\n"),
        ),
    ),
    Mutant(
        name="books-before-verification",
        wrong="The callback is booked first and verified afterwards; the answer is 401.",
        scenario="signature-wrong-key",
        changes=_on_arrival(
            "        if unauthorized and isinstance(unverified, Callback):\n"
            "            await self.writer.write(functools.partial(self.wallet._decide, unverified))\n"
        ),
    ),
    Mutant(
        name="remembers-401",
        wrong="A refusal of a token is remembered under the request_id, so anyone can block a callback.",
        scenario="signature-missing",
        changes=_on_arrival(
            "        if isinstance(unverified, Callback):\n"
            "            if unauthorized:\n"
            "                _SEEN.setdefault(unverified.request_id, verification)\n"
            "            verification = _SEEN.get(unverified.request_id, verification)\n"
        ),
    ),
    Mutant(
        name="idempotency-before-verification",
        wrong="A known request_id is answered before the token is verified.",
        scenario="signature-checked-each-time",
        changes=_on_arrival(
            "        if isinstance(unverified, Callback):\n"
            "            if not unauthorized:\n"
            "                _SEEN.setdefault(unverified.request_id, verification)\n"
            "            verification = _SEEN.get(unverified.request_id, verification)\n"
        ),
    ),
)

_PARAMS = '    currency = "" if method in _WITHOUT_CURRENCY'
"""Where the envelope has been read and `params` is an object."""

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
