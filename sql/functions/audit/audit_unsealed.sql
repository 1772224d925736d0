-- Returns what one turn of the sealer appends: the entries of rows whose transactions were not visible
-- in sealed_until and are now, of all operators together, and the position after them. All of it sees
-- one snapshot, so no transaction is skipped, whenever it commits. It reads `span` transaction ids
-- on from sealed_until, and about `most` rows of whole transactions; is_behind says that more follow.
-- `needs` is begin or restore if audit_begin() or audit_restore() must run first. Every row has the
-- position; operator_id and the columns behind it are null if there is nothing to append.
create or replace function predictu_dispatch.audit_unsealed(most integer, span bigint)
returns table (needs text, revision bigint, sealed_until text, sealed_at timestamptz, is_behind boolean,
               has_backlog boolean, operator_id text, origin text, size bigint, root bytea, level integer, tile bigint,
               is_new boolean, hashes bytea, report_ids bytea, started_from timestamptz, started_until timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off set max_parallel_workers_per_gather = 0 as $$
#variable_conflict use_column
declare
    current_snapshot pg_snapshot := pg_current_snapshot();
    state predictu_dispatch.audit_position;
    begins_at bigint;
    ends_at bigint;
    -- Transactions that were under way when sealed_until was taken, and have ended.
    ended bigint[];
    found bigint;
    -- The last written_in of this turn if there are more rows than `most`.
    cut bigint;
    last_xid bigint;
    next_until text;
    rows record;
begin
    select p.* into state from predictu_dispatch.audit_position p;
    if state.revision is null or exists (
           select o.operator_id from predictu_dispatch.operator o
           except select l.operator_id from predictu_dispatch.audit_log l) then
        needs := 'begin';
    elsif state.system_identifier <> (select c.system_identifier from pg_control_system() c)
          or pg_snapshot_xmax(current_snapshot) < pg_snapshot_xmax(state.sealed_until) then
        needs := 'restore';
    end if;
    if needs is not null then
        return next;
        return;
    end if;
    begins_at := pg_snapshot_xmax(state.sealed_until)::text::bigint;
    ends_at := least(pg_snapshot_xmax(current_snapshot)::text::bigint, begins_at + span);
    ended := array(select x::text::bigint + state.xid_offset from pg_snapshot_xip(state.sealed_until) x
                    where pg_visible_in_snapshot(x, current_snapshot));

    select count(*) into found
      from predictu_dispatch.attempt_record a
     where a.written_in >= begins_at + state.xid_offset and a.written_in < ends_at + state.xid_offset
        or a.written_in = any (ended);
    if found >= most then
        select a.written_in into cut
          from predictu_dispatch.attempt_record a
         where a.written_in >= begins_at + state.xid_offset and a.written_in < ends_at + state.xid_offset
            or a.written_in = any (ended)
         order by a.written_in offset most - 1 limit 1;
    end if;
    last_xid := coalesce(cut - state.xid_offset, ends_at - 1);

    select array_agg(c.operator_id) as operator_ids, array_agg(c.written_in) as written, array_agg(c.entry_id) as entry_ids,
           array_agg(c.started_at) as started, array_agg(c.leaf) as leaves into rows
      from (
        select a.operator_id, a.written_in, a.report_id as entry_id, a.started_at,
               sha256(decode('00', 'hex') || predictu_dispatch.audit_entry(a)) as leaf
          from predictu_dispatch.attempt a
         where a.written_in >= begins_at + state.xid_offset and a.written_in <= last_xid + state.xid_offset
        union all
        select a.operator_id, a.written_in, a.report_id, a.started_at,
               sha256(decode('00', 'hex') || predictu_dispatch.audit_entry(a))
          from predictu_dispatch.attempt a
         where a.written_in = any (ended) and a.written_in <= last_xid + state.xid_offset and cardinality(ended) > 0
        union all
        select o.operator_id, o.written_in, o.entry_id, null, o.leaf from predictu_dispatch.audit_sparse_entries() o
         where o.written_in >= begins_at + state.xid_offset and o.written_in <= last_xid + state.xid_offset
            or o.written_in = any (ended) and o.written_in <= last_xid + state.xid_offset
      ) c;

    -- Now sealed: what was, and what is visible up to last_xid. Not sealed, below the highest sealed
    -- one: what is under way, and what has ended but came behind the cut.
    ends_at := greatest(last_xid + 1, begins_at);
    select coalesce(min(x.xid), ends_at) || ':' || ends_at || ':' || coalesce(string_agg(x.xid::text, ',' order by x.xid), '')
      into next_until
      from (select x::text::bigint as xid from pg_snapshot_xip(current_snapshot) x
            union
            select x::text::bigint from pg_snapshot_xip(state.sealed_until) x where x::text::bigint > last_xid) x
     where x.xid < ends_at;
    return query
        select null::text, state.revision, next_until,
               case when ends_at = pg_snapshot_xmax(current_snapshot)::text::bigint and cut is null
                    then now() else state.sealed_at end,
               ends_at < pg_snapshot_xmax(current_snapshot)::text::bigint or cut is not null,
               state.backlog_until is not null, p.*
          from (values (true)) as always
          left join predictu_dispatch.audit_tile_growth(rows.operator_ids, rows.written, rows.entry_ids, rows.started,
                                                  rows.leaves) p on true;
end $$;

revoke all on function predictu_dispatch.audit_unsealed from public;
grant execute on function predictu_dispatch.audit_unsealed to predictu_dispatcher;
