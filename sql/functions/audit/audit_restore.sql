-- Continues the logs in another cluster, whose transaction ids begin from the start: raises xid_offset
-- above every written_in that is stored, and makes every stored row the backlog. Rows whose id is in a
-- tile are not sealed again. Returns false if the cluster has not changed. Raises 55P03 if a table is
-- in use for longer than the lock timeout; then it must be called again.
create or replace function predictu_dispatch.audit_restore() returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms'
set enable_seqscan = off as $$
declare
    state predictu_dispatch.audit_position;
    cluster bigint := (select c.system_identifier from pg_control_system() c);
    -- What cannot be an id of a transaction, and must not stop the logs.
    largest constant bigint := 1::bigint << 52;
    new_offset bigint;
    relation text;
begin
    perform predictu_dispatch.commit_durably();
    select p.* into state from predictu_dispatch.audit_position p for update;
    if state.system_identifier = cluster
       and pg_snapshot_xmax(pg_current_snapshot()) >= pg_snapshot_xmax(state.sealed_until) then
        return false;
    end if;
    -- Rows of the old cluster that are not sealed are at or above sealed_until's end, so the index has them.
    new_offset := state.xid_offset + pg_snapshot_xmax(state.sealed_until)::text::bigint;
    new_offset := greatest(
        new_offset,
        (select max(a.written_in) from predictu_dispatch.attempt_record a
          where a.written_in >= new_offset and a.written_in < largest),
        (select max(i.written_in) from predictu_dispatch.intervention i where i.written_in < largest),
        (select max(greatest(k.written_in, k.retired_in)) from predictu_dispatch.signing_key k
          where greatest(k.written_in, k.retired_in) < largest),
        (select max(r.written_in) from predictu_dispatch.audit_removal r where r.written_in < largest));
    foreach relation in array array['attempt_record', 'intervention', 'signing_key', 'audit_removal', 'audit_log'] loop
        execute format('lock table predictu_dispatch.%I in access exclusive mode', relation);
    end loop;
    -- Now the rows that this cluster has written with the old offset are below this.
    new_offset := greatest(new_offset, state.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint);
    foreach relation in array array['attempt_record', 'intervention', 'signing_key', 'audit_removal', 'audit_log'] loop
        execute format('alter table predictu_dispatch.%I alter column written_in '
                       'set default pg_current_xact_id()::text::bigint + %s', relation, new_offset);
    end loop;
    update predictu_dispatch.audit_position p
       set system_identifier = cluster, xid_offset = new_offset, sealed_until = pg_current_snapshot(),
           backlog_until = pg_current_snapshot(), backlog_part = '', backlog_source = null, backlog_block = null,
           revision = p.revision + 1;
    return true;
end $$;

revoke all on function predictu_dispatch.audit_restore from public;
grant execute on function predictu_dispatch.audit_restore to predictu_dispatcher;
