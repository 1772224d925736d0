// A small, complete operator for Predictu's callbacks. Node.js 20, no dependencies.
//
// It was written from the guide, ../../README.md, and does what the guide asks: it verifies before it
// parses, stores each request_id with its answer, books all or nothing, and answers after the commit.
// The wallet is in memory and in one append-only file. For production, replace Wallet and Journal by
// your database: the account, the bet and the stored answer in one transaction.
import { createHash, createPublicKey, randomUUID } from "node:crypto";
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, truncateSync } from "node:fs";
import { open } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { verifiedCallback } from "./verify.mjs";

const BODY_BYTES_MAX = 256 * 1024;
const ENDS = { BET_WIN: "won", BET_LOSE: "lost", BET_SELL: "sold", BET_REFUND: "refunded", BET_ROLLBACK: "rolled_back" };
/** Longer than Predictu keeps an idle connection, so that it never sends on one that is being closed. */
const KEEP_ALIVE_MS = 75_000;

/** An answer that books nothing and is not stored. `balance` is a BigInt or undefined. */
const refusal = (http, status, balance) => ({ answer: { http, status, balance } });

/** A callback whose parameters are not those of the guide. */
class BadRequest extends Error {}

/** Checks the parameters. Amounts become BigInt; further parameters are ignored. */
function checkedParams(method, params) {
  const text = (key) => {
    const value = params?.[key];
    if (typeof value !== "string" || value.length < 1 || value.length > 200) throw new BadRequest(`params: ${key}`);
    return value;
  };
  const amount = () => {
    // JSON.parse makes doubles: a whole number beyond 2^53 is no longer the one that was sent.
    if (!Number.isSafeInteger(params.amount) || params.amount < (method === "BET_MAKE" ? 1 : 0)) {
      throw new BadRequest("params: amount is not a whole number of subunits");
    }
    return BigInt(params.amount);
  };
  if (method === "PING") return {};
  if (method === "BALANCE") return { player: text("player_id"), currency: text("currency") };
  if (method === "BET_LOSE") return { player: text("player_id"), bet: text("bet_id"), amount: 0n };
  if (method !== "BET_MAKE" && !(method in ENDS)) throw new BadRequest(`unknown method ${method}`);
  return {
    player: text("player_id"),
    currency: text("currency"),
    bet: text("bet_id"),
    amount: amount(),
    debit: method === "BET_ROLLBACK" ? text("rollback_of") : undefined,
  };
}

/**
 * Accounts, bets and stored answers. `decide` changes nothing; `book` carries out what was decided, now
 * and when the journal is read again. Nothing is awaited between the two, so callbacks never interleave.
 */
class Wallet {
  balances = new Map(); // By account, a BigInt.
  bets = new Map(); // By bet_id: { debit, player, currency, amount, state }.
  debits = new Map(); // The bet_id by the request_id of its BET_MAKE.
  answers = new Map(); // By request_id: { digest, answer }.

  account(player, currency) {
    return JSON.stringify([player, currency]);
  }

  /** Returns the answer and, if there is something to store, the entry for the journal. */
  decide({ method, request_id: id, params }, digest) {
    const stored = this.answers.get(id);
    if (stored && stored.digest !== digest) return refusal(409, "REQUEST_ID_REUSED");
    // A repeated success is DUPLICATE with the first answer's fields; a repeated refusal is the same refusal.
    if (stored) return { answer: { ...stored.answer, status: stored.answer.status === "OK" ? "DUPLICATE" : stored.answer.status } };
    const { debit, ...call } = checkedParams(method, params);
    if (method === "PING") return { answer: { http: 200, status: "OK" } };
    if (method === "BALANCE") {
      const balance = this.balances.get(this.account(call.player, call.currency));
      return balance === undefined ? refusal(404, "PLAYER_NOT_FOUND") : { answer: { http: 200, status: "OK", balance } };
    }
    const decided = method === "BET_MAKE" ? this.place(id, call) : this.end(method, call, debit);
    if (!decided.stored) return decided;
    const { stored: effect, answer } = decided;
    return { answer, entry: { id, digest, answer, ...effect } };
  }

  /** Every answer to a BET_MAKE is stored, a refusal too: the bet has failed for the player. */
  place(id, { player, currency, bet: betId, amount }) {
    const account = this.account(player, currency);
    const balance = this.balances.get(account);
    const known = this.bets.get(betId) ?? this.bets.get(this.debits.get(id));
    const refused = (http, status) => ({ answer: { http, status, balance }, stored: {} });
    if (known?.state === "never_placed") return refused(409, "BET_CLOSED");
    if (known) return refused(409, "BET_EXISTS");
    if (balance === undefined) return refused(404, "PLAYER_NOT_FOUND");
    if (balance < amount) return refused(200, "INSUFFICIENT_FUNDS");
    const bet = { id: betId, debit: id, player, currency, amount, state: "open" };
    return this.booked(account, -amount, bet);
  }

  end(method, { player, currency, bet: betId, amount }, debit) {
    const bet = this.bets.get(betId) ?? this.bets.get(this.debits.get(debit));
    if (!bet && method === "BET_ROLLBACK") {
      // The debit may still arrive. It must then be refused, so the bet is stored as never placed.
      const tombstone = { id: betId, debit, player, currency, amount, state: "never_placed" };
      return { answer: { http: 404, status: "TRANSACTION_NOT_FOUND" }, stored: { bet: tombstone } };
    }
    if (!bet) return refusal(404, "BET_NOT_FOUND");
    const isOther =
      bet.id !== betId ||
      bet.player !== player ||
      (currency !== undefined && bet.currency !== currency) ||
      (debit !== undefined && bet.debit !== debit) ||
      (["BET_REFUND", "BET_ROLLBACK"].includes(method) && bet.amount !== amount);
    if (isOther) return refusal(422, "BET_MISMATCH");
    if (bet.state === "never_placed" && method === "BET_ROLLBACK") return refusal(404, "TRANSACTION_NOT_FOUND");
    if (bet.state !== "open") return refusal(409, "BET_CLOSED");
    return this.booked(this.account(player, bet.currency), amount, { ...bet, state: ENDS[method] });
  }

  booked(account, delta, bet) {
    const balance = this.balances.get(account) + delta;
    return { answer: { http: 200, status: "OK", balance, transaction: `tx-${randomUUID()}` }, stored: { account, delta, bet } };
  }

  /** Carries out one entry. */
  book({ id, digest, answer, account, delta, bet }) {
    if (answer) this.answers.set(id, { digest, answer });
    if (account) this.balances.set(account, (this.balances.get(account) ?? 0n) + delta);
    if (bet) this.bets.set(bet.id, bet);
    if (bet) this.debits.set(bet.debit, bet.id);
  }
}

/** An append-only file, one JSON entry a line. BigInts are written as {"n":"123"}. */
class Journal {
  #lines = [];
  #writing = Promise.resolve();
  #next = null;

  constructor(file) {
    this.file = file;
  }

  /** Returns all entries. A process that was killed may have left a torn last line: it is cut off. */
  async open() {
    const octets = existsSync(this.file) ? readFileSync(this.file) : Buffer.alloc(0);
    const end = octets.lastIndexOf(10) + 1;
    if (end < octets.length) truncateSync(this.file, end);
    this.handle = await open(this.file, "a");
    // What was written before the kill may not be on disk yet, nor the new file's name in its folder.
    await this.handle.sync();
    const folder = openSync(dirname(this.file), "r");
    fsyncSync(folder);
    closeSync(folder);
    const reviver = (_, value) => (typeof value?.n === "string" ? BigInt(value.n) : value);
    return octets.toString("utf8", 0, end).split("\n").slice(0, -1).map((line) => JSON.parse(line, reviver));
  }

  append(entry) {
    this.#lines.push(JSON.stringify(entry, (_, value) => (typeof value === "bigint" ? { n: `${value}` } : value)) + "\n");
  }

  /** Resolves when everything that was appended until now is on disk. Waiting callers share one fsync. */
  committed() {
    if (this.#lines.length === 0) return this.#writing;
    this.#next ??= this.#writing.then(() => this.#write());
    return this.#next;
  }

  async #write() {
    const lines = this.#lines.join("");
    this.#lines = [];
    this.#writing = this.#next;
    this.#next = null;
    try {
      await this.handle.appendFile(lines);
      await this.handle.sync();
    } catch (fault) {
      // The memory is ahead of the file now. Only a new start, from the file, makes them equal.
      console.error(`operator: cannot write ${this.file}: ${fault.message}`);
      process.exit(1);
    }
  }
}

/** Reads Predictu's keys as one JWKS; the kid of a PEM key is its RFC 7638 thumbprint. */
function readKeys(jwksFiles, pemFiles) {
  const keys = jwksFiles.flatMap((file) => JSON.parse(readFileSync(file)).keys);
  for (const file of pemFiles) {
    const { kty, crv, x, n, e } = createPublicKey(readFileSync(file)).export({ format: "jwk" });
    const canonical = JSON.stringify(kty === "OKP" ? { crv, kty, x } : { e, kty, n });
    keys.push({ kty, crv, x, n, e, kid: createHash("sha256").update(canonical).digest("base64url") });
  }
  if (keys.length === 0) throw new Error("give Predictu's key: --public-key FILE.pem or --jwks FILE");
  return { keys };
}

/** Returns the request's body, or null if it is too long. */
async function readBody(request) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    length += chunk.length;
    if (length > BODY_BYTES_MAX) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function main() {
  const text = (fallback) => ({ type: "string", default: fallback });
  const { values: options } = parseArgs({
    options: {
      "operator-id": text(""),
      database: text(""),
      listen: text("127.0.0.1:8080"),
      path: text("/predictu"),
      algorithm: text("EdDSA"),
      players: text(""),
      currency: text("EUR"),
      jwks: { type: "string", multiple: true, default: [] },
      "public-key": { type: "string", multiple: true, default: [] },
    },
  });
  const operatorId = options["operator-id"];
  if (!operatorId || !options.database) throw new Error("give --operator-id ID and --database FILE");
  const jwks = readKeys(options.jwks, options["public-key"]);
  const wallet = new Wallet();
  const journal = new Journal(options.database);
  const book = (entry) => {
    wallet.book(entry);
    journal.append(entry);
  };

  const decided = (authorization, body) => {
    let callback;
    try {
      callback = verifiedCallback(authorization, body, jwks, options.algorithm, operatorId);
    } catch (fault) {
      // Quoted: the message may have text of a token that nobody verified.
      console.error(`operator: 401: ${JSON.stringify(fault.message).slice(0, 200)}`);
      return refusal(401, "UNAUTHORIZED").answer;
    }
    try {
      const { answer, entry } = wallet.decide(callback, createHash("sha256").update(body).digest("hex"));
      if (entry) book(entry);
      return answer;
    } catch (fault) {
      if (!(fault instanceof BadRequest)) throw fault;
      console.error(`operator: 400: ${fault.message}`);
      return refusal(400, "BAD_REQUEST").answer;
    }
  };

  // A callback that arrives before the journal was read waits: the wallet does not know its answers yet.
  let start;
  const started = new Promise((resolve) => (start = resolve));
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS, requestTimeout: 10_000 }, async (request, response) => {
    const send = ({ http, status, balance, transaction }) => {
      // A balance may be larger than a JavaScript number, so it is written as its digits.
      const members = [`"status":${JSON.stringify(status)}`];
      if (balance !== undefined) members.push(`"balance":${balance}`);
      if (transaction !== undefined) members.push(`"transaction_id":${JSON.stringify(transaction)}`);
      response.writeHead(http, { "Content-Type": "application/json" }).end(`{${members.join(",")}}`);
    };
    try {
      if (request.url !== options.path || request.method !== "POST") return send({ http: 404, status: "NOT_FOUND" });
      const body = await readBody(request);
      if (body === null) {
        response.setHeader("Connection", "close");
        return send({ http: 413, status: "BAD_REQUEST" });
      }
      await started;
      const answer = decided(request.headers.authorization, body);
      // Also before a repetition and a BALANCE: they may tell of an entry that is not on disk yet.
      await journal.committed();
      return send(answer);
    } catch (fault) {
      // The connection ended inside the body: nothing was read as a callback, nothing was booked.
      if (request.destroyed && !request.complete) return response.destroy();
      console.error("operator: 500:", fault);
      return response.headersSent ? response.destroy() : send({ http: 500, status: "INTERNAL_ERROR" });
    }
  });

  const [, host, port] = /^(.+):(\d+)$/.exec(options.listen) ?? [];
  if (!host) throw new Error("--listen is not of the form HOST:PORT");
  // The port comes first: a second process on the same port must not touch the file.
  await new Promise((resolve, reject) => server.once("error", reject).listen({ host, port: Number(port), backlog: 1024 }, resolve));
  for (const entry of await journal.open()) wallet.book(entry);
  for (const [player, balance] of options.players.split(",").filter(Boolean).map((pair) => pair.split("="))) {
    const account = wallet.account(player, options.currency);
    if (!wallet.balances.has(account)) book({ account, delta: BigInt(balance) });
  }
  await journal.committed();
  start();
  console.log(JSON.stringify({ event: "operator.listening", url: `http://${host}:${server.address().port}${options.path}` }));
  for (const name of ["SIGTERM", "SIGINT"]) {
    process.once(name, () => {
      server.close(() => journal.committed().then(() => process.exit(0)));
      server.closeIdleConnections();
      setTimeout(() => server.closeAllConnections(), 5_000).unref();
    });
  }
}

main().catch((fault) => {
  console.error(`operator: ${fault.code === "EADDRINUSE" ? "--listen: the address is in use" : fault.message}`);
  process.exit(2);
});
