-- The wallet's tables. Amounts are whole subunits. Constraints enforce the money rules.

create table if not exists players (
    player_id text not null,
    currency text not null,
    balance integer not null check (typeof(balance) = 'integer' and balance between 0 and 999999999999999999),
    primary key (player_id, currency)
) without rowid;

-- One row per bet. `never_placed` is a tombstone: the rollback came first, so the debit is refused.
create table if not exists bets (
    bet_id text primary key,
    debit_request_id text not null unique,
    player_id text not null,
    currency text not null,
    amount integer not null check (typeof(amount) = 'integer' and amount >= 0),
    state text not null check (state in ('open', 'won', 'lost', 'sold', 'refunded', 'rolled_back', 'never_placed')),
    ended_by text unique,
    check ((state = 'open') = (ended_by is null))
) without rowid;

-- The ledger. `amount` is the change of the balance, negative for a debit. A player's rows add up
-- to the balance.
create table if not exists transactions (
    transaction_id text primary key,
    request_id text not null unique,
    method text not null check (method in ('DEPOSIT', 'BET_MAKE', 'BET_WIN', 'BET_LOSE', 'BET_SELL', 'BET_REFUND', 'BET_ROLLBACK')),
    bet_id text,
    player_id text not null,
    currency text not null,
    amount integer not null check (typeof(amount) = 'integer' and ((method = 'BET_MAKE') = (amount < 0))),
    created_at text not null,
    check ((method = 'DEPOSIT') = (bet_id is null)),
    foreign key (player_id, currency) references players (player_id, currency)
) without rowid;

create index if not exists transactions_by_time on transactions (created_at);
create unique index if not exists one_debit_per_bet on transactions (bet_id) where method = 'BET_MAKE';
create unique index if not exists one_terminal_per_bet on transactions (bet_id) where method not in ('DEPOSIT', 'BET_MAKE');

-- The answer to each request_id, which is bound to its first body. A final answer is repeated.
create table if not exists answers (
    request_id text primary key,
    body_sha256 text not null,
    final integer not null check (final in (0, 1)),
    http_status integer not null,
    status text not null,
    message text not null,
    balance integer,
    currency text,
    transaction_id text
) without rowid;

-- Every verified callback that arrived, the decision and the reply. `http_status` and `answer` are
-- null if nothing was sent.
create table if not exists callback_record (
    record_id integer primary key autoincrement,
    received_at text not null,
    request_id text,
    method text,
    bet_id text,
    body blob not null,
    signature text not null,
    outcome text not null check (outcome in ('applied', 'duplicate', 'refused', 'read', 'unauthorized', 'bad_request',
                                             'request_id_reused', 'not_processed')),
    status text,
    http_status integer,
    answer text,
    fault text
);

-- The newest arrivals that could not be verified. Nothing in them is parsed; the hash is null if the
-- body was not complete.
create table if not exists unverified_arrivals (
    arrival_id integer primary key autoincrement,
    received_at text not null,
    body_sha256 text,
    body_bytes integer,
    reason text not null,
    http_status integer
);

-- The newest checkpoint of Predictu's audit log that was cosigned. It never becomes smaller.
create table if not exists cosigned_logs (
    origin text primary key,
    size integer not null check (size >= 0),
    root blob not null check (length(root) = 32),
    cosigned_at text not null
) without rowid;

create index if not exists callback_record_by_request on callback_record (request_id);

create trigger if not exists callback_record_keeps_rows before delete on callback_record
begin select raise(abort, 'callback_record is append-only'); end;
create trigger if not exists callback_record_keeps_values before update on callback_record
begin select raise(abort, 'callback_record is append-only'); end;
create trigger if not exists transactions_keep_rows before delete on transactions
begin select raise(abort, 'transactions is append-only'); end;
create trigger if not exists transactions_keep_values before update on transactions
begin select raise(abort, 'transactions is append-only'); end;
create trigger if not exists cosigned_logs_keep_rows before delete on cosigned_logs
begin select raise(abort, 'a cosigned log is never forgotten'); end;
create trigger if not exists cosigned_logs_grow before update on cosigned_logs
when new.size < old.size or (new.size = old.size and new.root <> old.root)
begin select raise(abort, 'a cosigned log never shrinks or changes'); end;
