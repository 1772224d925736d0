"""Mutants that read tokens wrongly."""

from __future__ import annotations

from tests.certification.mutants.mutant import Change, Mutant, before

_VERIFY, _RECEIVER = "verify.py", "receiver.py"
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


def _unverified(condition: str) -> tuple[Change, ...]:
    """Take a callback unverified if the condition on `content`, the callback, holds."""
    return (
        before(
            _VERIFY,
            "    claims = verify_token(",
            "    content = read_callback(body, operator_id=operator_id, money=money)\n"
            f"    if isinstance(content, Callback) and {condition}:\n"
            "        return Verification(signature=VERIFIED, content=content, names=content.names)\n",
        ),
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
    Mutant(
        name="ends-not-verified",
        wrong="Only the code of BET_MAKE verifies the token, so anyone can forge a win.",
        scenario="signature-every-method",
        changes=_unverified('content.method not in ("PING", "BALANCE", "BET_MAKE")'),
    ),
    Mutant(
        name="balance-not-verified",
        wrong="BALANCE is answered without verification of the token.",
        scenario="signature-every-method",
        changes=_unverified('content.method == "BALANCE"'),
    ),
    Mutant(
        name="key-taken-from-the-token",
        wrong="If the token's kid is unknown, the key in the token's header verifies it.",
        scenario="signature-unknown-kid",
        changes=(
            before(
                _VERIFY,
                "    if not isinstance(kid, str) or kid not in keyring.keys:\n",
                '    if "jwk" in header:\n        return jwt.PyJWK(header["jwk"], algorithm=keyring.algorithm).key\n',
            ),
        ),
    ),
)
