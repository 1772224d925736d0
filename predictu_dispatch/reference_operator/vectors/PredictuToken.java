import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.X509EncodedKeySpec;
import java.util.Base64;
import java.util.HexFormat;
import java.util.Map;

public final class PredictuToken {
    private static final ObjectMapper JSON =
            new ObjectMapper().enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS);

    /** Returns the callback in body. Throws if it is not Predictu's. */
    public static JsonNode verifiedCallback(
            String authorization, byte[] body, Map<String, PublicKey> keys, String algorithm, String operatorId, long now)
            throws Exception {
        check(authorization != null && authorization.regionMatches(true, 0, "Bearer ", 0, 7), "no bearer token");
        String[] parts = authorization.substring(7).split("\\.", -1);
        check(parts.length == 3, "not a token");
        JsonNode head = JSON.readTree(Base64.getUrlDecoder().decode(parts[0]));
        check(head.path("alg").asText().equals(algorithm), "alg is not the expected one");
        PublicKey key = keys.get(head.path("kid").asText());
        check(key != null, "kid is unknown");
        // initVerify refuses a key of another algorithm.
        Signature signature = Signature.getInstance(algorithm.equals("EdDSA") ? "Ed25519" : "SHA256withRSA");
        signature.initVerify(key);
        signature.update((parts[0] + "." + parts[1]).getBytes("US-ASCII"));
        check(signature.verify(Base64.getUrlDecoder().decode(parts[2])), "signature");

        JsonNode claims = JSON.readTree(Base64.getUrlDecoder().decode(parts[1]));
        check(claims.path("iss").asText().equals("predictu"), "iss");
        check(claims.path("sub").asText().equals(operatorId), "sub");
        check(claims.path("iat").isIntegralNumber() && claims.path("iat").asLong() <= now + 5, "iat");
        check(claims.path("exp").isIntegralNumber() && now - 5 < claims.path("exp").asLong(), "exp");
        check(claims.path("exp").asLong() - claims.path("iat").asLong() <= 300, "exp");
        String digest = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
        check(claims.path("digest").asText().equals(digest), "digest does not match the body");
        JsonNode callback = JSON.readTree(body);
        check(claims.path("method").equals(callback.path("method")), "method does not match the body");
        String requestId = claims.path("jti").asText().split(":", 2)[0];
        check(requestId.equals(callback.path("request_id").asText()), "jti does not match the body's request_id");
        return callback;
    }

    public static PublicKey publicKey(String pem) throws GeneralSecurityException {
        byte[] der = Base64.getMimeDecoder().decode(pem.replaceAll("-----[^-]+-----", ""));
        String kind = der.length == 44 ? "Ed25519" : "RSA";
        return KeyFactory.getInstance(kind).generatePublic(new X509EncodedKeySpec(der));
    }

    private static void check(boolean holds, String why) throws GeneralSecurityException {
        if (!holds) throw new GeneralSecurityException(why);
    }
}
