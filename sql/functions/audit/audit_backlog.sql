-- Returns one step of the backlog, as audit_unsealed() does: rows that were stored when the logs began
-- or the cluster changed, and that no tile has. First interventions, keys and removals, then `blocks`
-- blocks of one partition of the audit after another. A partition that was replaced since the last
-- step, by retention or VACUUM FULL, is read from its beginning. `backlog_part` is 'done' at the end.
create or replace function predictu_dispatch.audit_backlog(blocks integer)
returns table (revision bigint, backlog_part text, backlog_source bigint, backlog_block bigint,
               operator_id text, origin text, size bigint, root bytea, level integer, tile bigint,
               is_new boolean, hashes bytea, report_ids bytea, started_from timestamptz, started_until timestamptz)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set jit = off as $$
#variable_conflict use_column
declare
    state predictu_dispatch.audit_position;
    part record;
    first_block bigint;
    next_part text;
    next_source bigint;
    next_block bigint;
    attempts text;
    rows record;
begin
    select p.* into state from predictu_dispatch.audit_position p where p.backlog_until is not null;
    if state.revision is null then
        return;
    end if;
    select null::text[] as operator_ids, null::bigint[] as written, null::uuid[] as entry_ids,
           null::timestamptz[] as started, null::bytea[] as leaves into rows;
    if state.backlog_part = '' then
        select array_agg(o.operator_id) as operator_ids, array_agg(o.written_in) as written,
               array_agg(o.entry_id) as entry_ids, array_agg(null::timestamptz) as started, array_agg(o.leaf) as leaves
          into rows
          from predictu_dispatch.audit_sparse_entries() o
         where (o.written_in is null or o.written_in <= state.xid_offset
                or pg_visible_in_snapshot((o.written_in - state.xid_offset)::text::xid8, state.backlog_until));
        next_part := ' ';
    else
        -- The partitions in the order of their names; rows of the backlog are in no later one.
        select c.relname::text as name, pg_relation_filenode(c.oid)::bigint as source,
               pg_relation_size(c.oid) / current_setting('block_size')::bigint as blocks
          into part
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'predictu_dispatch.attempt_record'::regclass and c.relname::text collate "C" >= state.backlog_part
         order by c.relname limit 1;
        if part.name is null then
            next_part := 'done';
        else
            first_block := case when part.name = state.backlog_part and part.source = state.backlog_source
                                then state.backlog_block else 0 end;
            -- The view's text, read from one partition's blocks.
            attempts := replace(rtrim(pg_get_viewdef('predictu_dispatch.attempt'::regclass), ';'),
                                'FROM predictu_dispatch.attempt_record',
                                format('FROM predictu_dispatch.%I attempt_record WHERE ctid >= %L AND ctid < %L', part.name,
                                       format('(%s,0)', first_block), format('(%s,0)', first_block + blocks)));
            execute format($statement$
                select array_agg(a.operator_id) as operator_ids, array_agg(a.written_in) as written,
                       array_agg(a.report_id) as entry_ids, array_agg(a.started_at) as started,
                       array_agg(sha256(decode('00', 'hex')
                                        || predictu_dispatch.audit_entry(row(a.*)::predictu_dispatch.attempt))) as leaves
                  from (%s) a
                 where a.written_in is null or a.written_in <= $1
                    or pg_visible_in_snapshot((a.written_in - $1)::text::xid8, $2)
                $statement$, attempts)
               into rows using state.xid_offset, state.backlog_until;
            if first_block + blocks < part.blocks then
                next_part := part.name;
                next_source := part.source;
                next_block := first_block + blocks;
            else
                -- The next name in any order.
                next_part := part.name || ' ';
            end if;
        end if;
    end if;

    -- Without those that are sealed. A tile may hold an attempt only if its times enclose the attempt's.
    with candidate as materialized (
        select * from unnest(rows.operator_ids, rows.written, rows.entry_ids, rows.started, rows.leaves)
                      as c (operator_id, written_in, entry_id, started_at, leaf)
    ), bounds as materialized (
        select c.operator_id, min(c.started_at) as started_from, max(c.started_at) as started_until,
               bool_or(c.started_at is null) as is_anywhere
          from candidate c group by c.operator_id
    ), sealed as materialized (
        select t.operator_id, substr(t.report_ids, 16 * n + 1, 16) as id, substr(t.hashes, 32 * n + 1, 32) as leaf
          from bounds b
          join predictu_dispatch.audit_tile t
            on t.operator_id = b.operator_id and t.level = 0
               and (b.is_anywhere or t.started_from <= b.started_until and t.started_until >= b.started_from)
         cross join generate_series(0, octet_length(t.report_ids) / 16 - 1) as n
    )
    select array_agg(c.operator_id) as operator_ids, array_agg(c.written_in) as written,
           array_agg(c.entry_id) as entry_ids, array_agg(c.started_at) as started, array_agg(c.leaf) as leaves
      into rows
      from candidate c
     where not exists (select from sealed s
                        where s.operator_id = c.operator_id and s.id = uuid_send(c.entry_id) and s.leaf = c.leaf);
    return query
        select state.revision, next_part, next_source, next_block, p.*
          from (values (true)) as always
          left join predictu_dispatch.audit_tile_growth(rows.operator_ids, rows.written, rows.entry_ids, rows.started,
                                                  rows.leaves) p on true;
end $$;

revoke all on function predictu_dispatch.audit_backlog from public;
grant execute on function predictu_dispatch.audit_backlog to predictu_dispatcher;
