import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.security.PublicKey;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/** Prints the names of the vectors that the README's Java, PredictuToken.java beside this file, accepts. */
public final class RunVectors {
    public static void main(String[] arguments) throws Exception {
        ObjectMapper json = new ObjectMapper();
        JsonNode vectors = json.readTree(new File(arguments[0]));
        Map<String, PublicKey> keys = new HashMap<>();
        for (Iterator<Map.Entry<String, JsonNode>> pems = vectors.get("pems").fields(); pems.hasNext(); ) {
            Map.Entry<String, JsonNode> pem = pems.next();
            keys.put(pem.getKey(), PredictuToken.publicKey(pem.getValue().asText()));
        }
        List<String> accepted = new ArrayList<>();
        for (JsonNode vector : vectors.get("cases")) {
            String name = vector.get("name").asText();
            try {
                JsonNode callback = PredictuToken.verifiedCallback(
                        vector.get("authorization").asText(),
                        vector.get("body_base64").binaryValue(),
                        keys,
                        vector.get("algorithm").asText(),
                        vectors.get("operator_id").asText(),
                        vector.get("now").asLong());
                if (callback.has("params")) accepted.add(name);
            } catch (Exception fault) {
                System.err.println(name + ": " + fault);
            }
        }
        System.out.println(json.writeValueAsString(accepted));
    }
}
