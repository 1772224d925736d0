/** Runs calls of the package: a JSON line on stdin for each call, a JSON line on stdout for its result. */
import { createInterface } from "node:readline";
import { Client, Pool, types } from "pg";
import * as client from "predictu-dispatch-client";

import { buy } from "./readme.js";

type Arguments = Record<string, any>;

types.setTypeParser(types.builtins.INT8, Number); // As some applications do; it loses digits.
const pool = new Pool({ connectionString: process.env.DSN!, max: 4 });
pool.on("error", () => undefined); // An idle connection was cut; the pool has dropped it.
const outcomes = new client.Outcomes(pool, Number(process.env.POLL_MS));
const stop = new AbortController();
const listening = process.env.LISTEN_DSN
  ? outcomes.listen(() => new Client({ connectionString: process.env.LISTEN_DSN! }), stop.signal)
  : undefined;
const ends = { BET_WIN: client.winBet, BET_SELL: client.sellBet, BET_REFUND: client.refundBet };

function placement({ bet_id, amount = 1250, player_id = "p-1", currency = "EUR" }: Arguments): client.Placement {
  const bet = { market_id: "m-7", outcome: "yes", odds: 1.85, shares: 10, price: 0.54 };
  return { player_id, currency, amount: BigInt(amount), bet_id, bet };
}

const calls: Record<string, (given: Arguments) => Promise<unknown>> = {
  place: (given) =>
    client.repeat(() =>
      client.inTransaction(pool, async (connection) => {
        await connection.query("insert into trade (bet_id, state) values ($1, 'placing') on conflict do nothing", [
          given.bet_id,
        ]);
        await client.placeBet(connection, given.operator_id, given.request_id, placement(given));
      }),
    ),
  end: ({ operator_id, request_id, method, bet_id, amount }) =>
    method === "BET_LOSE"
      ? client.loseBet(pool, operator_id, request_id, { player_id: "p-1", bet_id })
      : ends[method as keyof typeof ends](pool, operator_id, request_id, {
          player_id: "p-1",
          currency: "EUR",
          amount: BigInt(amount),
          bet_id,
        }),
  buy: (given) => buy(pool, outcomes, placement(given)),
  roll_back: ({ operator_id, bet_id }) => client.rollbackBet(pool, operator_id, bet_id, "no liquidity"),
  placed: ({ operator_id, request_id, timeout_s }) => outcomes.placed(operator_id, request_id, timeout_s * 1000),
  placed_all: ({ operator_id, request_ids, timeout_s }) =>
    Promise.all(request_ids.map((id: string) => outcomes.placed(operator_id, id, timeout_s * 1000))),
  balance: ({ operator_id, player_id }) => outcomes.balance(operator_id, player_id, "EUR"),
  digits: ({ currency }) => client.currencyDigits(pool, currency),
  place_and_catch: (given) =>
    client.inTransaction(pool, async (connection) => {
      await client.placeBet(connection, given.operator_id, client.newRequestId(), placement(given));
      await client.rollbackBet(connection, given.operator_id, "unknown", "caught").catch(() => undefined);
    }),
  place_without_odds: (given) => {
    const { bet, ...others } = placement(given);
    return client.placeBet(pool, given.operator_id, client.newRequestId(), { ...others, bet: { ...bet, odds: NaN } });
  },
  money: async ({ units, currency, digits }) => {
    const subunits = client.toSubunits(units, digits);
    return [subunits, client.formatMoney(subunits, currency, digits)];
  },
  new_request_id: async () => client.newRequestId(),
};

function text(value: unknown): string {
  // Amounts as text, because the test compares every digit.
  return JSON.stringify(value, (_, part) => (typeof part === "bigint" ? part.toString() : part));
}

function described(fault: unknown): object {
  const { name, message, code, hint, reason, operatorStatus, effect } = fault as client.DispatchError & client.BetNotPlaced;
  return { name, message, sqlstate: code, hint, reason, operator_status: operatorStatus, effect };
}

async function run(line: string): Promise<void> {
  const { number, name, given } = JSON.parse(line);
  const answer = await calls[name]!(given).then(
    (result) => ({ number, result: result ?? null }),
    (fault: unknown) => ({ number, fault: described(fault) }),
  );
  console.log(text(answer));
}

const running: Promise<void>[] = [];
for await (const line of createInterface({ input: process.stdin })) running.push(run(line));
await Promise.all(running);
stop.abort();
await listening;
await pool.end();
