<?php

/** Returns the callback in $body. Throws if it is not Predictu's. */
function verified_callback(
    string $authorization, string $body, array $pems, string $algorithm, string $operator_id, ?float $now = null
): array {
    $now ??= microtime(true);
    $refuse = fn (string $why) => throw new RuntimeException($why);
    $octets = fn (string $part): string => sodium_base642bin($part, SODIUM_BASE64_VARIANT_URLSAFE_NO_PADDING);
    $read = fn (string $json): array => json_decode($json, true, 64, JSON_THROW_ON_ERROR | JSON_BIGINT_AS_STRING);
    preg_match('/^Bearer ([\w-]+)\.([\w-]+)\.([\w-]+)$/iD', $authorization, $parts) || $refuse('no bearer token');
    [, $head, $payload, $signature] = $parts;
    ['alg' => $alg, 'kid' => $kid] = $read($octets($head)) + ['alg' => null, 'kid' => ''];
    $alg === $algorithm || $refuse("alg is not $algorithm");
    $pem = $pems[$kid] ?? $refuse('kid is unknown');
    if ($algorithm === 'RS256') {
        $good = openssl_verify("$head.$payload", $octets($signature), $pem, OPENSSL_ALGO_SHA256) === 1;
    } else {
        $der = base64_decode(preg_replace('/-----[^-]+-----|\s/', '', $pem));
        strlen($der) === 44 || $refuse('the key is not for EdDSA'); // 12 bytes for the algorithm, 32 for the key.
        $good = sodium_crypto_sign_verify_detached($octets($signature), "$head.$payload", substr($der, 12));
    }
    $good || $refuse('signature');

    $claims = $read($octets($payload)) + array_fill_keys(['iss', 'sub', 'iat', 'exp', 'jti', 'method', 'digest'], null);
    $claims['iss'] === 'predictu' && $claims['sub'] === $operator_id || $refuse('iss or sub');
    is_int($claims['iat']) && $claims['iat'] <= $now + 5 || $refuse('iat');
    is_int($claims['exp']) && $now - 5 < $claims['exp'] && $claims['exp'] - $claims['iat'] <= 300 || $refuse('exp');
    $claims['digest'] === hash('sha256', $body) || $refuse("digest does not match the body");
    $callback = $read($body);
    $claims['method'] === $callback['method'] || $refuse("method does not match the body");
    explode(':', $claims['jti'])[0] === $callback['request_id'] || $refuse("jti does not match the body's request_id");
    return $callback;
}
