/**
 * Places and ends bets through Predictu dispatch, inside your own transactions.
 *
 * If your transaction is rolled back, nothing is enqueued. Choose the requestId before the
 * transaction begins: a call that is repeated with the same requestId and params counts once.
 */
import { randomBytes } from "node:crypto";
import { EventEmitter, once } from "node:events";
import { setTimeout as pause } from "node:timers/promises";
import type { Client, Pool, PoolClient } from "pg";

/** What the player bought. */
export interface BetDetails {
  market_id: string;
  outcome: string;
  odds: number | null;
  shares: number;
  price: number;
}

/** Params of BET_WIN, BET_SELL and BET_REFUND; a refund's amount is the whole debit. */
export interface Credit {
  player_id: string;
  currency: string;
  /** Whole subunits here and everywhere: 12.50 EUR is 1250n. */
  amount: bigint;
  bet_id: string;
}

/** Params of BET_MAKE. */
export interface Placement extends Credit {
  bet: BetDetails;
}

/** Params of BET_LOSE. */
export interface Loss {
  player_id: string;
  bet_id: string;
}

/** A client in your transaction, or a pool for a call of its own. */
export interface Queryable {
  query(text: string, values: unknown[]): Promise<{ rows: any[] }>;
}

/** What is known of a callback. */
export interface Outcome {
  state: "waiting" | "ready" | "in_flight" | "delivered" | "rejected" | "exhausted" | "cancelled";
  reason: string | null;
  effect: "none" | "unknown" | "applied";
  operator_status: string | null;
  operator_transaction_id: string | null;
  balance: bigint | null;
  finished_at: Date | null;
}

const ERRORS = {
  PD001: "UnknownMethod",
  PD002: "UnknownOperator", // Or disabled.
  PD003: "BadParams",
  PD004: "RequestIdReused",
  PD005: "BetState", // The bet's state forbids the call.
  PD006: "Locked", // Manual actions only.
  PD007: "InstanceInUse", // Daemons only.
  PD008: "NotAllowed", // The login may not act for this operator.
} as const;

/** The database refused the call: a SQLSTATE, a message that names the value, and a hint. */
export class DispatchError extends Error {
  override readonly name: string;

  constructor(
    message: string,
    readonly code: keyof typeof ERRORS,
    readonly hint: string | undefined,
    cause: unknown,
  ) {
    super(message, { cause });
    this.name = `${ERRORS[code]}Error`;
  }
}

/** The callback ended without the operator's confirmation; `reason` says why, in words. */
export class NotDeliveredError extends Error {
  override readonly name: string = "NotDeliveredError";
  readonly operatorStatus: string | null;
  readonly effect: Outcome["effect"];

  constructor(
    readonly outcome: Outcome,
    readonly reason: string = why(outcome),
  ) {
    super(reason);
    this.operatorStatus = outcome.operator_status;
    this.effect = outcome.effect;
  }
}

/** The bet was not placed. If `effect` is unknown, a debit is rolled back automatically. */
export class BetNotPlaced extends NotDeliveredError {
  override readonly name = "BetNotPlaced";

  constructor(outcome: Outcome) {
    const debit = outcome.effect === "unknown" ? "a debit, if there was one, is returned" : "nothing was debited";
    super(outcome, `${why(outcome)}; ${debit}`);
  }
}

/** The callback was not final in time. A bet must now be rolled back. */
export class OutcomeTimeout extends Error {
  override readonly name = "OutcomeTimeout";
}

const FINAL = new Set(["delivered", "rejected", "exhausted", "cancelled"]);

const WHY_EXHAUSTED: Record<string, string> = {
  circuit_open: "the operator is down",
  paused: "the operator is paused",
  deadline: "the operator did not answer in time",
  rolled_back: "it was rolled back",
};

function why({ state, reason, operator_status }: Outcome): string {
  if (state === "rejected") return `the operator rejected it: ${operator_status}`;
  if (state === "cancelled") return "it was cancelled before it was sent";
  return WHY_EXHAUSTED[reason ?? ""] ?? "the operator gave no valid answer";
}

/** Returns a UUID of version 7: it begins with the time, so new rows share index pages. */
export function newRequestId(): string {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6]! & 0x0f);
  bytes[8] = 0x80 | (bytes[8]! & 0x3f);
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** Enqueues the debit; wait for it with Outcomes.placed() after your commit. */
export const placeBet = enqueuing<Placement>("BET_MAKE");
/** Ends the bet with a credit. A bet ends once, with one of these four or rollbackBet(). */
export const winBet = enqueuing<Credit>("BET_WIN");
/** Ends the bet because the player sold the position. */
export const sellBet = enqueuing<Credit>("BET_SELL");
/** Ends the bet by returning its whole debit. */
export const refundBet = enqueuing<Credit>("BET_REFUND");
/** Ends the bet without a credit. */
export const loseBet = enqueuing<Loss>("BET_LOSE");

/**
 * Rolls back a bet whose outcome is unknown or whose trade failed; may be repeated. Returns the
 * rollback's request_id, or null if nothing has to be sent.
 */
export async function rollbackBet(client: Queryable, operatorId: string, betId: string, reason: string) {
  const [row] = await call(client, "rollback_bet($1, $2, $3) as id", [operatorId, betId, reason]);
  return row.id as string | null;
}

/** Returns what is known of the callback, or undefined if nothing was enqueued under this id. */
export async function readOutcome(client: Queryable, operatorId: string, requestId: string) {
  // As text: the application's parser of int8 may return a number, which loses digits.
  const columns = "state, reason, effect, operator_status, operator_transaction_id, balance::text, finished_at";
  const [row] = await call(client, "outcome($1, $2)", [operatorId, requestId], columns);
  const outcome: Outcome | undefined = row && { ...row, balance: row.balance === null ? null : BigInt(row.balance) };
  return outcome;
}

/** Returns how many digits the currency's subunits have: 2 for EUR, 0 for JPY. */
export async function currencyDigits(client: Queryable, currency: string): Promise<number> {
  const [row] = await call(client, "currency_digits($1) as digits", [currency]);
  if (row?.digits == null) throw new RangeError(`unknown currency ${currency}`);
  return row.digits;
}

/** Returns the exact amount in subunits: `toSubunits("12.5", 2)` is 1250n. Throws instead of rounding. */
export function toSubunits(units: string, digits: number): bigint {
  const [, sign, whole, fraction = ""] = /^(-?)(\d+)(?:\.(?=\d)(\d*?)0*)?$/.exec(units) ?? [];
  if (whole === undefined || fraction.length > digits) {
    throw new RangeError(`${units} is no amount with at most ${digits} digits`);
  }
  return BigInt(sign + whole + fraction.padEnd(digits, "0"));
}

/** Returns the amount as text: `12.50 EUR`. */
export function formatMoney(subunits: bigint, currency: string, digits: number): string {
  const text = (subunits < 0n ? -subunits : subunits).toString().padStart(digits + 1, "0");
  const at = text.length - digits;
  return `${subunits < 0n ? "-" : ""}${text.slice(0, at)}${digits ? "." : ""}${text.slice(at)} ${currency}`;
}

/** Runs `work` in its own transaction. */
export async function inTransaction<T>(pool: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  // A lost connection rejects the running query and emits this too; node exits without a listener.
  const ignore = () => undefined;
  client.on("error", ignore);
  let broken = true;
  try {
    await client.query("begin");
    const result = await work(client);
    // Postgres answers ROLLBACK, and no error, if a statement failed and `work` caught its error.
    const { command } = await client.query("commit");
    if (command !== "COMMIT") throw new Error("nothing was committed: a statement failed, and its error was caught");
    broken = false;
    return result;
  } finally {
    if (!broken) client.off("error", ignore);
    client.release(broken); // A failed connection is closed, and Postgres rolls back.
  }
}

/**
 * Runs your whole transaction again after a lost connection, a failover or a deadlock. So a COMMIT
 * whose answer was lost counts once, if `work` uses the same requestId each time.
 */
export async function repeat<T>(work: () => Promise<T>): Promise<T> {
  for (const pauseMs of [100, 500, 2000, 5000]) {
    try {
      return await work();
    } catch (fault) {
      if (!isRepeatable(fault)) throw fault;
      await pause(pauseMs);
    }
  }
  return work();
}

const askBalance = enqueuing<{ player_id: string; currency: string }>("BALANCE");

/** Waits for outcomes. All waits of a process share one listening client. */
export class Outcomes {
  readonly #notified = new EventEmitter().setMaxListeners(0);

  constructor(
    private readonly pool: Pool,
    private readonly pollMs = 500,
  ) {}

  /**
   * Receives notifications until `signal` is aborted, and reconnects: call it once. Without it, as
   * behind a transaction-pooling proxy, outcomes come by polling alone.
   */
  async listen(connect: () => Client, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const client = connect();
      client.on("error", () => undefined); // Without a listener node exits.
      client.on("notification", ({ payload }) => this.#notified.emit(`for ${payload}`));
      const ended = once(client, "end", { signal });
      ended.catch(() => undefined);
      try {
        await client.connect();
        await client.query("listen predictu_dispatch_outcome");
        await ended;
      } catch (fault) {
        if (!signal.aborted && !isRepeatable(fault)) throw fault;
      } finally {
        await client.end().catch(() => undefined);
      }
      await pause(1000, undefined, { signal }).catch(() => undefined);
    }
  }

  /** Returns the final outcome of any callback, after your commit. Throws OutcomeTimeout. */
  async wait(operatorId: string, requestId: string, timeoutMs = 20_000): Promise<Outcome> {
    const name = `for ${operatorId} ${requestId}`; // Never "error": anyone may notify.
    const ended = new AbortController();
    const { signal } = ended;
    let wake = () => {};
    const onNotification = () => wake();
    const poll = async (): Promise<Outcome> => {
      for (;;) {
        const notified = new Promise<void>((resolve) => (wake = resolve));
        try {
          const outcome = await readOutcome(this.pool, operatorId, requestId);
          if (!outcome) throw new RangeError(`${operatorId} has no callback ${requestId}; did you commit?`);
          if (FINAL.has(outcome.state)) return outcome;
        } catch (fault) {
          if (!isRepeatable(fault)) throw fault; // Else the database may come back.
        }
        await Promise.race([notified, pause(this.pollMs, undefined, { signal })]);
      }
    };
    const timeout = pause(timeoutMs, undefined, { signal }).then(() => {
      throw new OutcomeTimeout(`callback ${requestId} of ${operatorId} is not final after ${timeoutMs} ms`);
    });
    this.#notified.on(name, onNotification);
    try {
      return await Promise.race([poll(), timeout]);
    } finally {
      this.#notified.off(name, onNotification);
      ended.abort();
    }
  }

  /**
   * Returns if the player was debited; throws BetNotPlaced if not. After any other error the outcome
   * is unknown: call rollbackBet(). `timeoutMs` is a little longer than the operator's deadline_s,
   * 15 s by default.
   */
  async placed(operatorId: string, requestId: string, timeoutMs = 20_000): Promise<Outcome> {
    const outcome = await this.wait(operatorId, requestId, timeoutMs);
    if (outcome.state !== "delivered") throw new BetNotPlaced(outcome);
    return outcome;
  }

  /** Asks the operator for the player's balance. Throws NotDeliveredError. */
  async balance(operatorId: string, playerId: string, currency: string, timeoutMs = 20_000): Promise<bigint> {
    const requestId = newRequestId();
    await askBalance(this.pool, operatorId, requestId, { player_id: playerId, currency });
    const outcome = await this.wait(operatorId, requestId, timeoutMs);
    if (outcome.state !== "delivered" || outcome.balance === null) throw new NotDeliveredError(outcome);
    return outcome.balance;
  }
}

function enqueuing<P extends object>(method: string) {
  return async (client: Queryable, operatorId: string, requestId: string, params: P): Promise<void> => {
    // JSON.stringify() refuses a bigint, so the amount is a parameter of its own.
    const { amount = null, ...others } = params as { amount?: bigint };
    const withAmount = "$3::jsonb || jsonb_strip_nulls(jsonb_build_object('amount', $4::bigint))";
    const values = [operatorId, method, JSON.stringify(others, refuseNaN), amount, requestId];
    await call(client, `enqueue_callback($1, $2, ${withAmount}, $5)`, values);
  };
}

/** JSON.stringify() writes NaN and Infinity as null, which is allowed for odds. */
function refuseNaN(key: string, value: unknown): unknown {
  if (typeof value === "number" && !Number.isFinite(value)) throw new RangeError(`"${key}" is ${value}`);
  return value;
}

async function call(client: Queryable, invocation: string, values: unknown[], columns = "*"): Promise<any[]> {
  try {
    return (await client.query(`select ${columns} from predictu_dispatch.${invocation}`, values)).rows;
  } catch (fault) {
    const { code, message, hint } = fault as DispatchError;
    throw code in ERRORS ? new DispatchError(message, code, hint, fault) : fault;
  }
}

/** A lost connection, or a conflict with another transaction. */
function isRepeatable(fault: unknown): boolean {
  if (fault instanceof NotDeliveredError || fault instanceof OutcomeTimeout) return false;
  const { code, message } = fault as { code?: string; message: string };
  // A SQLSTATE, or a code of the system such as ECONNRESET; node-postgres has errors without a code.
  return code ? /^(08|57|53|40|54000|25006|E)/.test(code) : /connection|timeout/i.test(message);
}
