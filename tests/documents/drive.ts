/** Buys one bet by the example of sql/README.md; what came of it is a JSON line on stdout. */
import { Pool } from "pg";
import { Outcomes, type Placement } from "predictu-dispatch-client";

import { buy, fill, rollBack } from "./buy.js";

const [step = "", requestId = "", betId = ""] = process.argv.slice(2);
const pool = new Pool({ connectionString: process.env.PRODUCER_DSN! });
const placement: Placement = {
  player_id: "p-1",
  currency: "EUR",
  amount: step === "wrong-amount" ? -1n : 1250n,
  bet_id: betId,
  bet: { market_id: "m-7", outcome: "yes", odds: 1.85, shares: 10, price: 0.54 },
};

const trades: Record<string, typeof fill> = {
  "no-liquidity": async () => {
    throw new Error("no liquidity");
  },
  /** The trade is committed and its answer lost. */
  "filled-unheard": async () => {
    await fill(pool, betId);
    throw new Error("connection lost");
  },
  /** Another process took the row for one that has been placing for too long. */
  "too-old": async () => {
    await rollBack(pool, betId, "too old");
    await fill(pool, betId);
  },
};

try {
  const whyNot = await buy(pool, new Outcomes(pool), requestId, placement, trades[step] ?? fill);
  console.log(JSON.stringify({ why_not: whyNot ?? null }));
} catch (fault) {
  console.log(JSON.stringify({ fault: String(fault) }));
}
await pool.end();
