// Prints the names of the vectors that the README's JavaScript, verify.mjs beside this file, accepts.
import { readFileSync } from "node:fs";
import { verifiedCallback } from "./verify.mjs";

const vectors = JSON.parse(readFileSync(process.argv[2]));
const accepted = vectors.cases.filter((vector) => {
  const body = Buffer.from(vector.body_base64, "base64");
  try {
    const { authorization, algorithm, now } = vector;
    return verifiedCallback(authorization, body, vectors.jwks, algorithm, vectors.operator_id, now).params !== undefined;
  } catch (fault) {
    console.error(`${vector.name}: ${fault}`);
    return false;
  }
});
console.log(JSON.stringify(accepted.map((vector) => vector.name)));
