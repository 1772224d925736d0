-- compatible_from: 0001
-- outcome() says when a callback became final, and outcome_of_bet() returns the same for a bet, also
-- after retention removed it. The new columns are null in older tombstones.
drop function if exists predictu_dispatch.outcome(text, uuid);
delete from predictu_dispatch.schema_function where name = 'producers/outcome.sql';
alter table predictu_dispatch.request_tombstone add column finished_at timestamptz;
alter table predictu_dispatch.bet_tombstone
    add column placement_request_id uuid,
    add column terminal_request_id uuid;

-- The currencies: a reference table, the only list of them. ISO 4217's are those that were active when
-- this was written; the owner adds further ones, see add_currency(). A row is never changed or removed.
create table predictu_dispatch.currency (
    currency     text primary key check (currency ~ '^[0-9]*[A-Z][A-Z0-9]*$' and length(currency) between 3 and 10),
    -- An amount of 1 unit has 10 ^ minor_digits subunits. Amounts have at most 18 digits.
    minor_digits integer not null check (minor_digits between 0 and 18),
    -- False if the owner has added it.
    is_iso_4217  boolean not null default false,
    added_at     timestamptz not null default now(),
    -- The login that added it.
    added_by     text not null default session_user
);
insert into predictu_dispatch.currency (currency, minor_digits, is_iso_4217)
select code, digits, true
  from (values
    (0, 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF'),
    (2, 'AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP
         BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD
         FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD
         KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD
         NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
         SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED
         VES WST XCD XCG YER ZAR ZMW ZWG'),
    (3, 'BHD IQD JOD KWD LYD OMR TND'),
    (4, 'CLF UYW')
  ) as of_digits (digits, codes)
 cross join regexp_split_to_table(codes, '[^A-Z]+') as code;

revoke all on predictu_dispatch.currency from public;
grant select on predictu_dispatch.currency
    to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor;

drop function if exists predictu_dispatch.check_text(text, text, jsonb);

-- What \d+ shows of the relations that others read.
comment on table predictu_dispatch.bet is 'A bet: one placement and everything after it.';
comment on column predictu_dispatch.bet.operator_id is 'The operator whose player placed it.';
comment on column predictu_dispatch.bet.bet_id is 'The producer''s id of the bet, unique for each operator.';
comment on column predictu_dispatch.bet.state is 'placing, open (debited), closing (a terminal callback is under way), closed, or void (no debit took place).';
comment on column predictu_dispatch.bet.player_id is 'The operator''s id of the player.';
comment on column predictu_dispatch.bet.currency is 'The currency of all its amounts; see the table currency.';
comment on column predictu_dispatch.bet.amount is 'The stake, in subunits.';
comment on column predictu_dispatch.bet.placement_request_id is 'The request_id of its BET_MAKE. No callback has it if the bet was adopted.';
comment on column predictu_dispatch.bet.terminal_request_id is 'The request_id of the callback that ends it; null while there is none. A cancelled one stays until another takes its place.';
comment on column predictu_dispatch.bet.created_at is 'When it was enqueued or adopted.';
comment on column predictu_dispatch.bet.updated_at is 'When its state or its terminal callback last changed.';
comment on table predictu_dispatch.callback is 'The outbox: one row for each message that must reach an operator.';
comment on column predictu_dispatch.callback.request_id is 'The id that is the same in every attempt; the operator books it once. Unique for each operator.';
comment on column predictu_dispatch.callback.operator_id is 'The operator that gets it.';
comment on column predictu_dispatch.callback.method is 'PING, BALANCE, BET_MAKE, BET_WIN, BET_LOSE, BET_SELL, BET_REFUND or BET_ROLLBACK.';
comment on column predictu_dispatch.callback.bet_id is 'Its bet; null for PING and BALANCE.';
comment on column predictu_dispatch.callback.lane is 'interactive (PING, BALANCE, BET_MAKE, BET_ROLLBACK) or settlement.';
comment on column predictu_dispatch.callback.state is 'waiting (for its bet''s earlier callback), ready (due at due_at), in_flight, or final: delivered, rejected, exhausted, cancelled.';
comment on column predictu_dispatch.callback.reason is 'A short code for the state, or for the last failed attempt; null if there is nothing to say.';
comment on column predictu_dispatch.callback.effect is 'What is known of the operator''s side: none, unknown or applied. It never goes back.';
comment on column predictu_dispatch.callback.attempts is 'How many attempts began.';
comment on column predictu_dispatch.callback.params is 'The params that the producer gave. Amounts are in subunits, also if they are decimal on the wire.';
comment on column predictu_dispatch.callback.created_at is 'When it was enqueued.';
comment on column predictu_dispatch.callback.due_at is 'When the next attempt is due, while it is ready.';
comment on column predictu_dispatch.callback.expires_at is 'Nothing is sent after this time; null if it has no deadline.';
comment on column predictu_dispatch.callback.finished_at is 'When it became final; null before.';
comment on column predictu_dispatch.callback.operator_status is 'The status in the operator''s last answer.';
comment on column predictu_dispatch.callback.operator_transaction_id is 'The transaction_id in the operator''s last answer.';
comment on column predictu_dispatch.callback.balance is 'The player''s balance in the operator''s last answer, in subunits.';
comment on column predictu_dispatch.callback.anomaly is 'What was wrong with an answer that was accepted, for example a missing balance.';
comment on table predictu_dispatch.attempt is 'The audit: one row that decides each attempt, and one for each late answer. Append-only.';
comment on column predictu_dispatch.attempt.request_id is 'The callback.';
comment on column predictu_dispatch.attempt.operator_id is 'The operator.';
comment on column predictu_dispatch.attempt.method is 'The callback''s method.';
comment on column predictu_dispatch.attempt.attempt is 'The attempt''s number, from 1.';
comment on column predictu_dispatch.attempt.evidence is 'not_sent (no byte of the request left), unanswered (no complete answer came), or answered.';
comment on column predictu_dispatch.attempt.verdict is 'delivered, rejected or retry decide the attempt; late is an answer that came after the decision.';
comment on column predictu_dispatch.attempt.reason is 'A short code for the verdict.';
comment on column predictu_dispatch.attempt.instance is 'The daemon that made the attempt.';
comment on column predictu_dispatch.attempt.started_at is 'When the attempt was claimed, on the database''s clock.';
comment on column predictu_dispatch.attempt.finished_at is 'When it ended.';
comment on column predictu_dispatch.attempt.url is 'Where the request was sent.';
comment on column predictu_dispatch.attempt.key_id is 'The signing key, as the token''s header names it.';
comment on column predictu_dispatch.attempt.request_headers is 'The request''s headers; the token is without its signature.';
comment on column predictu_dispatch.attempt.request_body is 'The body that was sent.';
comment on column predictu_dispatch.attempt.response_status is 'The HTTP status code; null if there was no complete answer.';
comment on column predictu_dispatch.attempt.response_headers is 'The answer''s headers, as an array of [name, value] in the order received.';
comment on column predictu_dispatch.attempt.response_body is 'The answer''s bytes.';
comment on column predictu_dispatch.attempt.response_truncated is 'True if response_body is only the beginning.';
comment on column predictu_dispatch.attempt.connect_ms is 'Milliseconds until the connection was open; null if it was not reached.';
comment on column predictu_dispatch.attempt.first_byte_ms is 'Milliseconds until the first byte of the answer; null if it was not reached.';
comment on column predictu_dispatch.attempt.total_ms is 'Milliseconds from the attempt''s begin to its end.';
comment on column predictu_dispatch.attempt.error is 'What failed, in words.';
comment on table predictu_dispatch.operator is 'The operators, as the daemons registered them from their files.';
comment on column predictu_dispatch.operator.operator_id is 'The name of the operator''s file.';
comment on column predictu_dispatch.operator.enabled is 'False if its file has enabled = false: nothing new is enqueued.';
comment on column predictu_dispatch.operator.health is 'The result of the last PINGs: unknown, healthy, degraded or down.';
comment on column predictu_dispatch.operator.circuit is 'closed, open (nothing is sent but PINGs) or half_open (one PING decides).';
comment on column predictu_dispatch.operator.consecutive_failures is 'Failures in a row that count towards the circuit.';
comment on column predictu_dispatch.operator.last_success_at is 'When an attempt last succeeded.';
comment on column predictu_dispatch.operator.last_failure_at is 'When an attempt last failed.';
comment on column predictu_dispatch.operator.config_fingerprint is 'A digest of the operator''s settings, which differs after each change.';
comment on column predictu_dispatch.operator.updated_at is 'When this row last changed.';
comment on table predictu_dispatch.intervention is 'What people did. Append-only.';
comment on column predictu_dispatch.intervention.done_at is 'When it was done.';
comment on column predictu_dispatch.intervention.action is 'The action, such as retry, cancel, resolve, pause or resume.';
comment on column predictu_dispatch.intervention.operator_id is 'The operator.';
comment on column predictu_dispatch.intervention.request_id is 'The callback; null if the action concerns the operator itself.';
comment on column predictu_dispatch.intervention.bet_id is 'The callback''s bet; null if it has none, and in rows of the first release.';
comment on column predictu_dispatch.intervention.reason is 'The reason that was given.';
comment on column predictu_dispatch.intervention.done_by is 'Who did it, as the command says.';
comment on column predictu_dispatch.intervention.database_role is 'Who did it, as the database knows: the session''s login.';
comment on column predictu_dispatch.intervention.client_addr is 'The session''s address; null for a local socket.';
comment on column predictu_dispatch.intervention.before is 'The callback or the operator before the action.';
comment on column predictu_dispatch.intervention.after is 'The callback or the operator after the action.';
comment on table predictu_dispatch.producer_scope is 'If a login has rows here, it may act for these operators only. Only the owner of the schema writes it.';
comment on column predictu_dispatch.producer_scope.operator_id is 'An operator that the login may act for.';
comment on column predictu_dispatch.producer_scope.role_name is 'The login (session_user), not a role that it is a member of.';
comment on table predictu_dispatch.currency is 'The currencies that amounts may be in. Rows are added, and never changed or removed.';
comment on column predictu_dispatch.currency.currency is 'The code: 3 to 10 capital letters and digits.';
comment on column predictu_dispatch.currency.minor_digits is 'One unit is 10 ^ minor_digits subunits: 2 for EUR, 0 for JPY.';
comment on column predictu_dispatch.currency.is_iso_4217 is 'False if the owner of the schema has added it.';
comment on column predictu_dispatch.currency.added_at is 'When it was added.';
comment on column predictu_dispatch.currency.added_by is 'The login that added it.';
