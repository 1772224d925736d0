using System;
using System.Collections.Generic;
using System.Linq;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;
using Org.BouncyCastle.Crypto.Parameters;
using Org.BouncyCastle.Crypto.Signers;

public static class PredictuToken
{
    private static readonly Regex Bearer = new Regex(
        @"^Bearer ([A-Z0-9_-]+)\.([A-Z0-9_-]+)\.([A-Z0-9_-]+)\z", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant);

    /// <summary>Returns the callback in body. Throws if it is not Predictu's.</summary>
    public static JsonElement VerifiedCallback(
        string authorization, byte[] body, IReadOnlyDictionary<string, byte[]> keys, string algorithm, string operatorId, long now)
    {
        Match token = Bearer.Match(authorization ?? "");
        Check(token.Success, "no bearer token");
        string head = token.Groups[1].Value, payload = token.Groups[2].Value;
        JsonElement header = Parsed(Octets(head));
        Check(header.GetProperty("alg").GetString() == algorithm, "alg is not the expected one");
        Check(keys.TryGetValue(header.GetProperty("kid").GetString() ?? "", out byte[] key), "kid is unknown");
        byte[] signed = Encoding.ASCII.GetBytes(head + "." + payload);
        Check(Holds(Octets(token.Groups[3].Value), signed, key, algorithm), "signature");

        JsonElement claims = Parsed(Octets(payload));
        Check(claims.GetProperty("iss").GetString() == "predictu", "iss");
        Check(claims.GetProperty("sub").GetString() == operatorId, "sub");
        Check(claims.GetProperty("iat").GetInt64() <= now + 5, "iat");
        Check(now - 5 < claims.GetProperty("exp").GetInt64(), "exp");
        Check(claims.GetProperty("exp").GetInt64() - claims.GetProperty("iat").GetInt64() <= 300, "exp");
        Check(claims.GetProperty("digest").GetString() == Sha256(body), "digest does not match the body");
        JsonElement callback = Parsed(body);
        Check(claims.GetProperty("method").GetString() == callback.GetProperty("method").GetString(), "method does not match the body");
        string requestId = claims.GetProperty("jti").GetString().Split(':')[0];
        Check(requestId == callback.GetProperty("request_id").GetString(), "jti does not match the body's request_id");
        return callback;
    }

    public static byte[] PublicKey(string pem)
    {
        return Convert.FromBase64String(string.Concat(pem.Split('\n').Where(line => !line.StartsWith("-"))));
    }

    private static bool Holds(byte[] signature, byte[] signed, byte[] key, string algorithm)
    {
        if (algorithm == "RS256")
        {
            using (RSA rsa = RSA.Create())
            {
                rsa.ImportSubjectPublicKeyInfo(key, out _); // Refuses a key of another algorithm.
                return rsa.VerifyData(signed, signature, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
            }
        }
        Check(algorithm == "EdDSA" && key.Length == 44, "the key is not for EdDSA"); // 12 bytes for the algorithm, 32 for the key.
        var verifier = new Ed25519Signer();
        verifier.Init(false, new Ed25519PublicKeyParameters(key, 12));
        verifier.BlockUpdate(signed, 0, signed.Length);
        return verifier.VerifySignature(signature);
    }

    private static string Sha256(byte[] octets)
    {
        using (SHA256 hash = SHA256.Create())
        {
            return string.Concat(hash.ComputeHash(octets).Select(octet => octet.ToString("x2")));
        }
    }

    private static JsonElement Parsed(byte[] json)
    {
        using (JsonDocument document = JsonDocument.Parse(json))
        {
            return document.RootElement.Clone();
        }
    }

    private static byte[] Octets(string base64url)
    {
        string text = base64url.Replace('-', '+').Replace('_', '/');
        return Convert.FromBase64String(text.PadRight((text.Length + 3) / 4 * 4, '='));
    }

    private static void Check(bool holds, string why)
    {
        if (!holds) throw new CryptographicException(why);
    }
}
