import { createHash, createPublicKey, verify } from "node:crypto";

/** Returns the callback in `body` (a Buffer). Throws if it is not Predictu's. */
export function verifiedCallback(authorization, body, jwks, algorithm, operatorId, now = Date.now() / 1000) {
  const refuse = (why) => {
    throw new Error(why);
  };
  const octets = (part) => Buffer.from(part, "base64url");
  const [, head, payload, signature] =
    /^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/i.exec(authorization ?? "") ?? refuse("no bearer token");
  const { alg, kid } = JSON.parse(octets(head));
  if (alg !== algorithm) refuse(`alg ${alg}, expected ${algorithm}`);
  const kty = { EdDSA: "OKP", RS256: "RSA" }[algorithm];
  const jwk = jwks.keys.find((key) => key.kid === kid && key.kty === kty) ?? refuse(`kid ${kid} is unknown`);
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const hash = algorithm === "EdDSA" ? null : "sha256";
  if (!verify(hash, Buffer.from(`${head}.${payload}`), key, octets(signature))) refuse("signature");

  const claims = JSON.parse(octets(payload));
  if (claims.iss !== "predictu" || claims.sub !== operatorId) refuse("iss or sub");
  if (!(claims.iat <= now + 5 && now - 5 < claims.exp && claims.exp - claims.iat <= 300)) refuse("iat or exp");
  if (claims.digest !== createHash("sha256").update(body).digest("hex")) refuse("digest does not match the body");
  const callback = JSON.parse(body);
  if (claims.method !== callback.method) refuse("method does not match the body");
  if (claims.jti.split(":")[0] !== callback.request_id) refuse("jti does not match the body's request_id");
  return callback;
}
