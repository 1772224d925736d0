/** One step of a producer's life, by the examples of sql/README.md; what came of it is a JSON line on stdout. */
import { Client, DatabaseError, Pool } from "pg";

import { Outcomes, Params, buy, place, placeWithRetries, rollBack } from "./producer";

const [step = "", operatorId = "", requestId = "", betId = ""] = process.argv.slice(2);
const params: Params = {
  player_id: "p-1",
  currency: "EUR",
  amount: 1250,
  bet_id: betId,
  bet: { market_id: "m-7", outcome: "yes", odds: 1.85, shares: 10, price: 0.54 },
};

async function fill(pool: Pool): Promise<void> {
  const { rowCount } = await pool.query("update trade set state = 'filled' where bet_id = $1 and state = 'placing'", [betId]);
  if (rowCount !== 1) throw new Error("cancelled meanwhile");
}

async function failToFill(): Promise<void> {
  throw new Error("no liquidity");
}

/** `fill` commits, and its answer is lost. */
async function fillUnheard(pool: Pool): Promise<void> {
  await fill(pool);
  throw new Error("connection lost");
}

async function run(pool: Pool, outcomes: Outcomes): Promise<unknown> {
  switch (step) {
    case "buy":
      return buy(pool, outcomes, operatorId, requestId, params, () => fill(pool));
    case "buy-without-liquidity":
      return buy(pool, outcomes, operatorId, requestId, params, failToFill);
    case "buy-filled-unheard":
      return buy(pool, outcomes, operatorId, requestId, params, () => fillUnheard(pool));
    case "place":
      return (await place(pool, operatorId, requestId, params)) ?? "placed";
    case "place-surely":
      return (await placeWithRetries(pool, operatorId, requestId, params)) ?? "placed";
    case "place-wrongly":
      return place(pool, operatorId, requestId, { ...params, amount: -1 });
    case "take-back":
      return rollBack(pool, operatorId, betId, "no liquidity");
    case "wait":
      return outcomes.wait(operatorId, requestId, 20_000);
    default:
      throw new Error(`unknown step ${step}`);
  }
}

async function main(): Promise<void> {
  const connectionString = process.env.DSN;
  const pool = new Pool({ connectionString });
  pool.on("error", () => undefined); // An idle connection was cut; the pool has dropped it.
  const outcomes = new Outcomes(pool);
  const listener = new Client({ connectionString: process.env.LISTEN_DSN ?? connectionString });
  await listener.connect();
  await outcomes.listen(listener);
  try {
    console.log(JSON.stringify({ result: await run(pool, outcomes) }));
  } catch (fault) {
    const { code, hint } = fault as DatabaseError;
    console.log(JSON.stringify({ fault: String(fault), is_database_error: fault instanceof DatabaseError, code, hint }));
  }
  await Promise.all([listener.end(), pool.end()]);
}

void main();
