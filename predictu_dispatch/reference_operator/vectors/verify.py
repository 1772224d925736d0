import hashlib
import json

import jwt


def verified_callback(authorization, body, jwks, algorithm, operator_id):
    """Returns the callback in `body` (bytes). Raises jwt.InvalidTokenError or ValueError if it is not Predictu's."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise ValueError("no bearer token")
    kty = {"EdDSA": "OKP", "RS256": "RSA"}[algorithm]
    keys = {key["kid"]: key for key in jwks["keys"] if key["kty"] == kty}
    kid = jwt.get_unverified_header(token).get("kid")
    if kid not in keys:
        raise ValueError(f"kid {kid!r} is unknown")
    claims = jwt.decode(
        token,
        jwt.PyJWK.from_dict(keys[kid]).key,
        algorithms=[algorithm],
        issuer="predictu",
        subject=operator_id,
        leeway=5,
        options={"require": ["iss", "sub", "iat", "exp", "jti", "method", "digest"]},
    )
    if claims["exp"] - claims["iat"] > 300:
        raise ValueError("the token is valid for too long")
    if claims["digest"] != hashlib.sha256(body).hexdigest():
        raise ValueError("digest does not match the body")
    callback = json.loads(body)
    if claims["method"] != callback["method"]:
        raise ValueError("method does not match the body")
    if claims["jti"].partition(":")[0] != callback["request_id"]:
        raise ValueError("jti does not match the body's request_id")
    return callback
