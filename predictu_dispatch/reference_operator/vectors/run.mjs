// Runs vectors.json against verify.mjs; exit code 1 if a verdict is wrong.
import { readFileSync } from "node:fs";
import { verifiedCallback } from "./verify.mjs";

const vectors = JSON.parse(readFileSync(process.argv[2] ?? new URL("../vectors.json", import.meta.url)));
const wrong = vectors.cases.flatMap(({ name, authorization, body_base64, algorithm, now, accept }) => {
  const body = Buffer.from(body_base64, "base64");
  let verdict = "accepted";
  try {
    verifiedCallback(authorization, body, vectors.jwks, algorithm, vectors.operator_id, now);
  } catch (fault) {
    verdict = `refused: ${fault.message}`;
  }
  return accept === (verdict === "accepted") ? [] : [`${name}: ${verdict}`];
});
wrong.forEach((line) => console.error(line));
console.log(`${vectors.cases.length - wrong.length} of ${vectors.cases.length} cases as expected`);
process.exitCode = wrong.length ? 1 : 0;
