-- compatible_from: 0001
-- The audit becomes provable: an attempt has the address and the certificate that answered and the
-- token's signature, every key that ever signed is kept, and one Merkle log for each operator seals
-- all of it (predictu_dispatch/evidence/FORMAT.md).

-- The table is attempt_record from now on, and `attempt` is a view of it without the signatures:
-- with its signature a token is a credential while it is valid, and `select *` must keep working
-- for every reader.
alter table predictu_dispatch.attempt rename to attempt_record;
revoke all on predictu_dispatch.attempt_record from public, predictu_dispatcher, predictu_support, predictu_retention,
    predictu_operations, predictu_auditor, predictu_producer, predictu_importer;
alter table predictu_dispatch.attempt_record
    -- The address and port to which the request was sent: 192.0.2.1:443 or [2001:db8::1]:443.
    add column peer text,
    -- SHA-256 of the certificate (DER) that the other side presented; null without TLS.
    add column peer_certificate_sha256 bytea,
    -- The signature of the token: 64 bytes for EdDSA.
    add column token_signature bytea,
    -- A repetition of an earlier answer keeps its first 4096 bytes in response_body. Then this is the
    -- SHA-256 of the whole body, and response_body_repeats is the attempt whose row has it; both are
    -- null if response_body is whole.
    add column response_body_sha256 bytea,
    add column response_body_repeats integer,
    -- The transaction that wrote the row, so that the log finds what is new; see audit_position.
    add column written_in bigint,
    -- Not valid, because validating it reads the whole audit under the lock that stops deliveries. In
    -- the rows from before, both are null.
    add constraint attempt_repeats_an_earlier_answer
        check ((response_body_sha256 is null) = (response_body_repeats is null)
               and coalesce(response_body_repeats < attempt, true)) not valid;
-- A default of its own, so that no row is rewritten and rows from before stay null.
alter table predictu_dispatch.attempt_record
    alter column written_in set default pg_current_xact_id()::text::bigint;
-- Months that have rows get theirs after the migrations, while daemons deliver; it is valid then.
create index attempt_written on only predictu_dispatch.attempt_record using brin (written_in)
    with (pages_per_range = 32, autosummarize = on);
do $$ declare
    part text;
begin
    for part in select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
                 where i.inhparent = 'predictu_dispatch.attempt_record'::regclass and pg_relation_size(c.oid) = 0 loop
        execute format('create index %I on predictu_dispatch.%I using brin (written_in) '
                       'with (pages_per_range = 32, autosummarize = on)', part || '_written_in_idx', part);
        execute format('alter index predictu_dispatch.attempt_written attach partition predictu_dispatch.%I',
                       part || '_written_in_idx');
    end loop;
end $$;

-- A successor that an interrupted retention run left lacks these columns; the next run starts again.
do $$ declare
    kept text;
begin
    for kept in select relname from pg_class
                 where relnamespace = 'predictu_dispatch'::regnamespace and relkind = 'r' and relname like 'kept_%' loop
        execute format('drop table predictu_dispatch.%I', kept);
    end loop;
end $$;

-- What settle() takes since this release. `report` stays for daemons of earlier releases.
create type predictu_dispatch.attempt_report as (
    operator_id text, request_id uuid, attempt integer, bet_id text, state text, state_reason text, effect text,
    due_in_s double precision, operator_status text, operator_transaction_id text, balance bigint, anomaly text,
    reaped boolean, method text, evidence text, verdict text, reason text, instance text, started_at timestamptz,
    finished_at timestamptz, url text, key_id text, request_headers text, request_body text, response_status integer,
    response_headers text, response_body bytea, response_truncated boolean, connect_ms double precision,
    first_byte_ms double precision, total_ms double precision, error text, report_id uuid, peer text,
    peer_certificate_sha256 bytea, token_signature bytea, response_body_sha256 bytea, response_body_repeats integer
);
-- It gets further parameters with defaults.
drop function if exists predictu_dispatch.settle_one(text, uuid, integer, text, text, text, text, double precision,
    text, text, bigint, text, boolean, text, text, text, text, text, timestamptz, timestamptz, text, text, text, text,
    integer, text, bytea, boolean, double precision, double precision, double precision, text, uuid);
-- A function takes rows of this view, so it is created here and not in functions/views. New columns
-- come last.
create view predictu_dispatch.attempt as
select operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url, key_id,
       request_headers, request_body, response_status, response_headers, response_body, response_truncated, connect_ms,
       first_byte_ms, total_ms, error, report_id, peer, peer_certificate_sha256, response_body_sha256,
       response_body_repeats, written_in,
       -- The SHA-256 of the whole token: the audited header with the signature in base64url.
       case when token_signature is not null
            then sha256(convert_to(replace(substr(request_headers ->> 'Authorization', 8), '[signature withheld]',
                                           translate(encode(token_signature, 'base64'), E'+/=\n', '-_')), 'UTF8')) end
           as token_sha256
  from predictu_dispatch.attempt_record;
revoke all on predictu_dispatch.attempt from public;
grant select on predictu_dispatch.attempt to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor;

comment on column predictu_dispatch.attempt_record.request_headers is 'The request''s headers. The token is without its signature, which is in token_signature.';
comment on column predictu_dispatch.attempt_record.response_body is 'The answer''s bytes; the first 4096 if response_body_repeats is not null.';
comment on column predictu_dispatch.attempt_record.peer is 'The address and port of the connection on which the request was written.';
comment on column predictu_dispatch.attempt_record.peer_certificate_sha256 is 'SHA-256 of the certificate (DER) that the other side presented; null without TLS.';
comment on column predictu_dispatch.attempt_record.token_signature is 'The signature of the token. With it the token is a credential while it is valid.';
comment on column predictu_dispatch.attempt_record.response_body_sha256 is 'SHA-256 of the whole answer, if response_body is only its first 4096 bytes; else null.';
comment on column predictu_dispatch.attempt_record.response_body_repeats is 'The attempt of this callback that got the same answer and has all of it; null if response_body is whole.';
comment on column predictu_dispatch.attempt_record.written_in is 'The transaction that wrote the row; null in rows from before these were recorded.';
comment on view predictu_dispatch.attempt is 'The audit: one row that decides each attempt, and one for each late answer. Append-only.';
comment on column predictu_dispatch.attempt.token_sha256 is 'SHA-256 of the whole token; null if its signature was not recorded.';
do $$ declare
    described record;
begin
    for described in
        select seen.attname, col_description(stored.attrelid, stored.attnum) as text
          from pg_attribute seen join pg_attribute stored using (attname)
         where seen.attrelid = 'predictu_dispatch.attempt'::regclass
           and stored.attrelid = 'predictu_dispatch.attempt_record'::regclass
           and col_description(stored.attrelid, stored.attnum) is not null
    loop
        execute format('comment on column predictu_dispatch.attempt.%I is %L', described.attname, described.text);
    end loop;
end $$;

-- Every key that ever signed. Append-only but for retired_at.
create table predictu_dispatch.signing_key (
    operator_id    text not null,
    -- The key's id: its thumbprint (RFC 7638).
    kid            text not null,
    algorithm      text not null check (algorithm in ('EdDSA', 'RS256')),
    public_jwk     jsonb not null,
    first_seen_at  timestamptz not null default clock_timestamp(),
    retired_at     timestamptz,
    -- The ids of its two entries in the log.
    first_seen_id  uuid not null default gen_random_uuid(),
    retired_id     uuid,
    written_in     bigint default pg_current_xact_id()::text::bigint,
    retired_in     bigint,
    primary key (operator_id, kid),
    check ((retired_at is null) = (retired_id is null) and (retired_at is null) = (retired_in is null)
           and coalesce(retired_at >= first_seen_at, true))
);

alter table predictu_dispatch.intervention add column written_in bigint;
alter table predictu_dispatch.intervention alter column written_in set default pg_current_xact_id()::text::bigint;
create index intervention_written on predictu_dispatch.intervention (written_in);

-- One log for each operator: its name, and what was there before it began.
create table predictu_dispatch.audit_log (
    operator_id        text not null primary key,
    -- The log's name: ORIGIN/<operator_id>.
    origin             text not null,
    start_id           uuid not null default gen_random_uuid(),
    started_at         timestamptz not null default clock_timestamp(),
    -- The attempts and interventions of this operator that were stored before the log began. Nothing
    -- is proved of them before started_at.
    attempts_before      bigint not null,
    interventions_before bigint not null,
    system_identifier  bigint not null,
    written_in         bigint default pg_current_xact_id()::text::bigint
);
-- Up to where rows are in the logs. One row.
create table predictu_dispatch.audit_position (
    -- The cluster to which the transaction ids belong; another one after a restore from a dump.
    system_identifier  bigint not null,
    -- written_in is the transaction's id plus this. It is raised above every stored written_in when
    -- the cluster has changed, because transaction ids start from the beginning there.
    xid_offset         bigint not null default 0,
    -- Every row is in a log that was written by a transaction visible in this snapshot, except
    -- those that the backlog has not reached.
    sealed_until       pg_snapshot not null,
    -- The backlog: the rows that were there when the logs began, or at a restore. It is read in the
    -- order of the partitions. Null if there is none.
    backlog_until      pg_snapshot,
    backlog_part       text,
    backlog_source     bigint,
    backlog_block      bigint,
    -- Raised with every change: a sealer that read an older one must start again.
    revision           bigint not null default 0,
    sealed_at          timestamptz not null default clock_timestamp()
);
alter table predictu_dispatch.audit_position replica identity full;
create unique index audit_position_single on predictu_dispatch.audit_position ((true));
-- The head of each log.
create table predictu_dispatch.audit_head (
    operator_id  text not null primary key,
    size         bigint not null check (size >= 0),
    root         bytea not null check (octet_length(root) = 32),
    -- The newest signed checkpoint.
    checkpoint   text not null,
    updated_at   timestamptz not null default clock_timestamp()
);
-- The tiles of each log (c2sp.org/tlog-tiles): 256 hashes of 32 bytes, fewer in the last one of a
-- level. On level 0 they are the leaves' hashes, and report_ids has the id of each entry, 16 bytes.
create table predictu_dispatch.audit_tile (
    operator_id    text not null,
    level          smallint not null check (level between 0 and 7),
    tile           bigint not null check (tile >= 0),
    hashes         bytea not null check (octet_length(hashes) between 32 and 8192 and octet_length(hashes) % 32 = 0),
    -- Null on other levels.
    report_ids     bytea check (report_ids is null or level = 0 and octet_length(report_ids) * 2 = octet_length(hashes)),
    -- started_at of its attempts; null on other levels and if it has none.
    started_from   timestamptz,
    started_until  timestamptz,
    primary key (operator_id, level, tile)
);
-- Hashes and random ids do not compress.
alter table predictu_dispatch.audit_tile alter column hashes set storage external,
    alter column report_ids set storage external,
    -- Each turn of the sealer leaves a dead version of each log's last tiles.
    set (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
         toast.autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_threshold = 2000);
-- One checkpoint for each operator and minute in which its log grew.
create table predictu_dispatch.audit_checkpoint (
    operator_id  text not null,
    size         bigint not null,
    checkpoint   text not null,
    signed_at    timestamptz not null default clock_timestamp(),
    primary key (operator_id, size)
);
-- Cosignatures of witnesses (c2sp.org/tlog-cosignature) of these checkpoints.
create table predictu_dispatch.audit_cosignature (
    operator_id  text not null,
    size         bigint not null,
    witness      text not null,
    -- The signature line, without its newline.
    line         text not null,
    cosigned_at  timestamptz not null default clock_timestamp(),
    primary key (operator_id, size, witness)
);
-- The last answer of each witness.
create table predictu_dispatch.audit_witness (
    operator_id      text not null,
    witness          text not null,
    -- The largest size that it has cosigned.
    size             bigint not null default 0,
    cosigned_at      timestamptz,
    -- The last failure, if it is newer than cosigned_at; is_refused: it answered, and did not cosign.
    failed_at        timestamptz,
    is_refused       boolean not null default false,
    failure          text,
    -- Failures in a row.
    failures         integer not null default 0,
    primary key (operator_id, witness)
);
-- Retention removed these entries' rows; written in the transaction that removes them.
create table predictu_dispatch.audit_removal (
    operator_id    text not null,
    removal_id     uuid not null default gen_random_uuid(),
    -- The month, such as 2024_01, or default.
    part           text not null,
    cutoff         timestamptz not null,
    attempts       bigint not null,
    -- The entries' indices in the log, and the SHA-256 of their text, such as 0-255,300-301: sorted,
    -- merged, both ends included.
    leaf_indices   int8multirange not null,
    leaf_indices_sha256 bytea not null,
    removed_at     timestamptz not null default clock_timestamp(),
    written_in     bigint default pg_current_xact_id()::text::bigint,
    primary key (operator_id, removal_id)
);
-- The indices of the entries whose rows purge_audit() has found in a detached month, until it drops
-- the month and writes audit_removal. In pieces of 4096 indices, so that a step rewrites little.
create table predictu_dispatch.audit_removal_draft (
    operator_id    text not null,
    part           text not null,
    -- The first index of the piece, divided by 4096.
    piece          bigint not null,
    leaf_indices   int8multirange not null,
    primary key (operator_id, part, piece)
);
-- Finds the tiles of a log that have an attempt of some time. GiST takes no text, but ranges of its
-- hash.
create index audit_tile_started on predictu_dispatch.audit_tile
    using gist (int8range(hashtext(operator_id), hashtext(operator_id), '[]'), tstzrange(started_from, started_until, '[]'))
    where level = 0;
-- The results of `audit verify`.
create table predictu_dispatch.audit_verification (
    operator_id  text not null,
    verified_at  timestamptz not null default clock_timestamp(),
    size         bigint not null,
    -- Entries that were changed, missing, added or reordered, checkpoints that do not fit, and so on.
    faults       bigint not null,
    first_faults jsonb not null,
    verified_by  text not null default session_user,
    primary key (operator_id, verified_at)
);
-- While a hold stands, retention removes nothing of the operator, or of the bet. Only the owner writes
-- it, as retention_floor.
create table predictu_dispatch.legal_hold (
    operator_id  text not null,
    -- Null: the whole operator.
    bet_id       text,
    reason       text not null,
    placed_at    timestamptz not null default clock_timestamp(),
    lifted_at    timestamptz,
    check (reason <> ''),
    check (lifted_at >= placed_at)
);
alter table predictu_dispatch.legal_hold replica identity full;
create index legal_hold_standing on predictu_dispatch.legal_hold (operator_id, bet_id) where lifted_at is null;
-- Old callbacks that were left because of a hold.
alter table predictu_dispatch.purge_cursor add column held bigint not null default 0;
drop function if exists predictu_dispatch.purge_finished(integer, integer);

-- Further chores: sealing, and asking the witnesses.
alter table predictu_dispatch.maintenance_chore
    drop constraint maintenance_chore_chore_check,
    add constraint maintenance_chore_chore_check check (chore in ('partitions', 'reap', 'backlog', 'seal', 'cosign'));
insert into predictu_dispatch.maintenance_chore (chore) values ('seal'), ('cosign');

revoke all on predictu_dispatch.signing_key, predictu_dispatch.audit_log, predictu_dispatch.audit_position,
    predictu_dispatch.audit_head, predictu_dispatch.audit_tile, predictu_dispatch.audit_checkpoint,
    predictu_dispatch.audit_cosignature, predictu_dispatch.audit_witness, predictu_dispatch.audit_removal,
    predictu_dispatch.audit_removal_draft, predictu_dispatch.audit_verification, predictu_dispatch.legal_hold from public;
grant select on predictu_dispatch.signing_key, predictu_dispatch.audit_log, predictu_dispatch.audit_position,
    predictu_dispatch.audit_head, predictu_dispatch.audit_tile, predictu_dispatch.audit_checkpoint,
    predictu_dispatch.audit_cosignature, predictu_dispatch.audit_witness, predictu_dispatch.audit_removal,
    predictu_dispatch.audit_verification, predictu_dispatch.legal_hold
    to predictu_auditor, predictu_operations, predictu_support;
