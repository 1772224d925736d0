import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.security.PublicKey;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;

/** Runs vectors.json against PredictuToken.java; exit code 1 if a verdict is wrong. */
public final class Run {
    public static void main(String[] arguments) throws Exception {
        JsonNode vectors = new ObjectMapper().readTree(new File(arguments.length > 0 ? arguments[0] : "../vectors.json"));
        Map<String, PublicKey> keys = new HashMap<>();
        for (Iterator<Map.Entry<String, JsonNode>> pems = vectors.get("pems").fields(); pems.hasNext(); ) {
            Map.Entry<String, JsonNode> pem = pems.next();
            keys.put(pem.getKey(), PredictuToken.publicKey(pem.getValue().asText()));
        }
        int wrong = 0;
        for (JsonNode vector : vectors.get("cases")) {
            String verdict = "accepted";
            try {
                PredictuToken.verifiedCallback(
                        vector.get("authorization").asText(),
                        vector.get("body_base64").binaryValue(),
                        keys,
                        vector.get("algorithm").asText(),
                        vectors.get("operator_id").asText(),
                        vector.get("now").asLong());
            } catch (Exception fault) {
                verdict = "refused: " + fault.getMessage();
            }
            if (vector.get("accept").asBoolean() != verdict.equals("accepted")) {
                wrong++;
                System.err.println(vector.get("name").asText() + ": " + verdict);
            }
        }
        int count = vectors.get("cases").size();
        System.out.println(count - wrong + " of " + count + " cases as expected");
        System.exit(wrong == 0 ? 0 : 1);
    }
}
