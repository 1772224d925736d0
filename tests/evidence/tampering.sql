-- What a superuser can do to the audit: a title, then the kind of fault and the subject
-- that `audit verify` must name, then the statements. `:one` and `:other` are two attempts of op_a, and
-- `:newest` is the last tile of its log.

-- an attempt deleted
--> missing: the entry
delete from attempt_record where report_id = :one;

-- an intervention deleted
--> missing: the entry
delete from intervention where bet_id = 'b-3' and operator_id = 'op_a';

-- a key deleted
--> missing: the entry
delete from signing_key where kid = 'key-2';

-- a key's retirement undone
--> missing: the entry
update signing_key set retired_at = null, retired_id = null, retired_in = null;

-- a removal deleted
--> missing: the entry
delete from audit_removal;

-- an attempt inserted
--> added: attempt 1 of 00000000-0000-4000-8000-000000000001
insert into attempt_record (operator_id, request_id, method, attempt, evidence, verdict, instance, started_at,
    finished_at, report_id, written_in) values ('op_a', '00000000-0000-4000-8000-000000000001', 'BET_MAKE', 1,
    'answered', 'delivered', 'host-1', now(), now(), gen_random_uuid(), 1);

-- an attempt copied with its id
--> copied: attempt
drop index attempt_decided;
insert into attempt_record select * from attempt_record where report_id = :one;

-- an attempt copied with a new id
--> added: attempt
drop index attempt_decided;
create temp table copied as select * from attempt_record where report_id = :one;
update copied set report_id = gen_random_uuid();
insert into attempt_record select * from copied;

-- the answers of two attempts swapped
--> changed: attempt
update attempt_record a set response_body = b.response_body from attempt_record b where a.report_id in (:one,
    :other) and b.report_id in (:one, :other)   and a.report_id <> b.report_id;

-- the ids of two attempts swapped
--> changed: attempt
update attempt_record a set report_id = b.report_id from attempt_record b where a.report_id in (:one, :other)
    and b.report_id in (:one, :other)   and a.report_id <> b.report_id;

-- an attempt moved to another operator
--> added: attempt
update attempt_record set operator_id = 'op_b' where report_id = :one;

-- a month dropped without a removal
--> missing: the entry
do $$ begin execute 'drop table predictu_dispatch.attempt_' || to_char(now(), 'YYYY_MM'); end $$;

-- deleted attempts covered by a removal that is not sealed
--> added: removal
delete from attempt_record where operator_id = 'op_a';
insert into audit_removal (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256, written_in)
    values ('op_a', '2024_02', now(), 9, '{[0,2000)}', sha256('0-1999'), 1);

-- a sealed removal extended
--> removal: removal
update audit_removal set leaf_indices = leaf_indices + '{[50,60)}';

-- a removed row put back
--> removal: attempt
create temp table back as select * from attempt_record where report_id = :one;
update back set report_id = (select encode(substr(report_ids, lower(leaf_indices)::integer * 16 + 1, 16),
    'hex')::uuid from audit_tile t, audit_removal r where t.operator_id = 'op_a' and level = 0 and tile = 0),
    request_id = gen_random_uuid();
insert into attempt_record select * from back;

-- an operator gone
--> log_missing: the log
delete from attempt_record where operator_id = 'op_a';
delete from intervention where operator_id = 'op_a';
delete from signing_key where operator_id = 'op_a';
delete from audit_log where operator_id = 'op_a';
delete from audit_head where operator_id = 'op_a';
delete from audit_tile where operator_id = 'op_a';
delete from audit_checkpoint where operator_id = 'op_a';
delete from audit_cosignature where operator_id = 'op_a';
delete from audit_removal where operator_id = 'op_a';
delete from audit_verification where operator_id = 'op_a';

-- a log's first row gone
--> log_missing: the log
delete from audit_log where operator_id = 'op_a';

-- a log's head gone
--> log_missing: the log
delete from audit_head where operator_id = 'op_a';

-- the newest 100 attempts deleted with their tiles
--> tile: tile 0/
delete from attempt_record where report_id in (select encode(substr(report_ids, n * 16 + 1, 16), 'hex')::uuid
    from audit_tile, generate_series(0, octet_length(report_ids) / 16 - 1) n where operator_id = 'op_a' and
    level = 0 order by tile desc, n desc limit 100);
delete from audit_tile where operator_id = 'op_a' and level = 0 and tile = :newest;

-- a leaf hash edited
--> changed: attempt
update audit_tile set hashes = set_bit(hashes, 12900, 1 - get_bit(hashes, 12900)) where operator_id = 'op_a'
    and level = 0 and tile = 0;

-- an entry's id edited
--> added: attempt
update audit_tile set report_ids = set_bit(report_ids, 6450, 1 - get_bit(report_ids, 6450)) where operator_id
    = 'op_a' and level = 0 and tile = 0;

-- two entries of the log swapped
--> checkpoint: checkpoint of size
update audit_tile set hashes = substr(hashes, 1, 32 * 4) || substr(hashes, 32 * 5 + 1, 32) || substr(hashes,
    32 * 4 + 1, 32) || substr(hashes, 32 * 6 + 1), report_ids = substr(report_ids, 1, 16 * 4) ||
    substr(report_ids, 16 * 5 + 1, 16) || substr(report_ids, 16 * 4 + 1, 16) || substr(report_ids, 16 * 6 + 1)
    where operator_id = 'op_a' and level = 0 and tile = 0;

-- an entry repeated in the log
--> sealed_twice: the entry
update audit_tile set hashes = overlay(hashes placing substr(hashes, 1601, 32) from 1633), report_ids =
    overlay(report_ids placing substr(report_ids, 801, 16) from 817) where operator_id = 'op_a' and level = 0
    and tile = 0;

-- the log's start replaced
--> start: the log
update audit_tile set report_ids = overlay(report_ids placing substr(report_ids, 17, 16) from 1) where
    operator_id = 'op_a' and level = 0 and tile = 0;

-- a tile deleted
--> tile: tile 0/1
delete from audit_tile where operator_id = 'op_a' and level = 0 and tile = 1;

-- a tile shortened
--> tile: tile 0/0
update audit_tile set hashes = substr(hashes, 1, 3200), report_ids = substr(report_ids, 1, 1600) where
    operator_id = 'op_a' and level = 0 and tile = 0;

-- a tile of level 1 edited
--> tile: tile 1/0
update audit_tile set hashes = set_bit(hashes, 9, 1 - get_bit(hashes, 9)) where level = 1;

-- a tile of level 1 deleted
--> tile: tile 1/0
delete from audit_tile where level = 1;

-- an entry behind the head
--> head: the head
update audit_tile set hashes = hashes || sha256('x'), report_ids = report_ids || uuid_send(gen_random_uuid())
    where operator_id = 'op_a' and level = 0 and tile = :newest;

-- the head's root edited
--> head: the head
update audit_head set root = set_bit(root, 0, 1 - get_bit(root, 0)) where operator_id = 'op_a';

-- the head made smaller
--> head: the head
update audit_head set size = size - 1 where operator_id = 'op_a';

-- the head's checkpoint edited
--> signature: the head's checkpoint
update audit_head set checkpoint = replace(checkpoint, size::text, (size + 1)::text) where operator_id =
    'op_a';

-- the head's checkpoint emptied
--> checkpoint: the head's checkpoint
update audit_head set checkpoint = '' where operator_id = 'op_a';

-- a checkpoint's root edited
--> signature: checkpoint of size
update audit_checkpoint set checkpoint = regexp_replace(checkpoint, '[A-Z]', 'z') where operator_id = 'op_a';

-- a checkpoint's signature edited
--> signature: checkpoint of size
update audit_checkpoint set checkpoint = overlay(checkpoint placing case substr(checkpoint, length(checkpoint)
    - 20, 1) when 'A' then 'B' else 'A' end from length(checkpoint) - 20 for 1);

-- a checkpoint of another log
--> checkpoint: checkpoint of size
update audit_checkpoint a set checkpoint = b.checkpoint from audit_checkpoint b where a.operator_id = 'op_a'
    and b.operator_id = 'op_b';

-- a checkpoint beyond the head
--> shrunk: the log
update audit_checkpoint set size = 5000 where (operator_id, size) = (select operator_id, max(size) from
    audit_checkpoint where operator_id = 'op_a' group by operator_id);

-- the view hides a changed row
--> view: the view attempt
do $$ declare body text := pg_get_viewdef('predictu_dispatch.attempt'::regclass); begin execute 'create or
    replace view predictu_dispatch.attempt as ' || replace(body, 'verdict,', '''delivered''::text as
    verdict,'); end $$;
update attempt_record set verdict = 'rejected' where report_id = :one;

-- an attempt inserted as if its transaction were still to come
--> added: attempt 1 of 00000000-0000-4000-8000-000000000001
insert into attempt_record (operator_id, request_id, method, attempt, evidence, verdict, instance, started_at,
    finished_at, report_id, written_in) values ('op_a', '00000000-0000-4000-8000-000000000001', 'BET_MAKE', 1,
    'answered', 'delivered', 'host-1', now(), now(), gen_random_uuid(), 1000000000000);

-- an attempt inserted at the end of time
--> added: attempt 1 of 00000000-0000-4000-8000-000000000001
insert into attempt_record (operator_id, request_id, method, attempt, evidence, verdict, instance, started_at,
    finished_at, report_id, written_in) values ('op_a', '00000000-0000-4000-8000-000000000001', 'BET_MAKE', 1,
    'answered', 'delivered', 'host-1', 'infinity', now(), gen_random_uuid(), 1);

-- a key retired without an entry
--> added: signing key key-2, retired
update signing_key set retired_at = now() where operator_id = 'op_a' and kid = 'key-2';

-- the position set back, so that an inserted attempt seems to wait
--> head: attempt
insert into attempt_record (operator_id, request_id, method, attempt, evidence, verdict, instance, started_at,
    finished_at, report_id) values ('op_a', gen_random_uuid(), 'BET_MAKE', 1, 'answered', 'delivered', 'host-1',
    now(), now(), gen_random_uuid());
update audit_position set sealed_until = '3:3:';

-- row security shows an attempt to nobody who verifies
--> view: the row security of attempt_record
alter table attempt_record enable row level security, force row level security;
create policy hidden on attempt_record using (session_user <> 'test_auditor' or verdict = 'delivered');

-- a table replaced by a view
--> view: the relation intervention
alter table intervention rename to intervention_before;
create view intervention as select * from intervention_before;
grant select on intervention to predictu_auditor;
