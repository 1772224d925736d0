-- Appends to the logs what audit_unsealed() or audit_backlog() returned, in one durable transaction.
-- If the position's revision is no longer the one that they read, it changes nothing. On level 0
-- hashes and report_ids are the new ones only, on higher levels those of the whole tile. The
-- backlog's columns are kept if `backlog_part` is null, and cleared if it is 'done'.
-- Returns the logs whose newest checkpoint is now stored: one in each minute after which a log has
-- grown. The first row has no operator and says whether the position was the expected one.
create or replace function predictu_dispatch.audit_append(
    expected bigint, sealed_until text, sealed_at timestamptz, backlog_part text, backlog_source bigint, backlog_block bigint,
    head_operators text[], sizes bigint[], roots bytea[], checkpoints text[],
    tile_operators text[], levels integer[], tiles bigint[], hashes bytea[], report_ids bytea[], started_from timestamptz[],
    started_until timestamptz[]
) returns table (is_appended boolean, operator_id text, origin text, size bigint, root bytea, checkpoint text)
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off set lock_timeout = '5s' as $$
#variable_conflict use_column
begin
    perform predictu_dispatch.commit_durably();
    update predictu_dispatch.audit_position p
       set revision = p.revision + 1,
           sealed_until = coalesce(audit_append.sealed_until::pg_snapshot, p.sealed_until),
           sealed_at = coalesce(audit_append.sealed_at, p.sealed_at),
           backlog_part = case when audit_append.backlog_part is null then p.backlog_part
                               when audit_append.backlog_part <> 'done' then audit_append.backlog_part end,
           backlog_source = case when audit_append.backlog_part is null then p.backlog_source
                                 else audit_append.backlog_source end,
           backlog_block = case when audit_append.backlog_part is null then p.backlog_block
                                else audit_append.backlog_block end,
           backlog_until = case when audit_append.backlog_part is distinct from 'done' then p.backlog_until end
     where p.revision = expected
       -- With a position ahead of the present, later rows would never be sealed.
       and coalesce(pg_snapshot_xmax(audit_append.sealed_until::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()), true);
    is_appended := found;
    return next;
    if not is_appended then
        return;
    end if;
    update predictu_dispatch.audit_tile t
       set hashes = t.hashes || n.hashes, report_ids = t.report_ids || n.report_ids,
           started_from = least(t.started_from, n.started_from),
           started_until = greatest(t.started_until, n.started_until)
      from unnest(tile_operators, levels, tiles, audit_append.hashes, audit_append.report_ids, audit_append.started_from,
                  audit_append.started_until)
           as n (operator_id, level, tile, hashes, report_ids, started_from, started_until)
     where n.level = 0 and t.operator_id = n.operator_id and t.level = 0 and t.tile = n.tile;
    -- New tiles get their ids afterwards: the two columns of one row would fill two pages of TOAST, and
    -- apart they need one and a half.
    insert into predictu_dispatch.audit_tile as t (operator_id, level, tile, hashes, started_from, started_until)
    select n.operator_id, n.level, n.tile, n.hashes, n.started_from, n.started_until
      from unnest(tile_operators, levels, tiles, hashes, started_from, started_until)
           as n (operator_id, level, tile, hashes, started_from, started_until)
        on conflict (operator_id, level, tile) do update set hashes = excluded.hashes where t.level > 0;
    update predictu_dispatch.audit_tile t
       set report_ids = n.report_ids
      from unnest(tile_operators, levels, tiles, audit_append.report_ids) as n (operator_id, level, tile, report_ids)
     where n.level = 0 and t.operator_id = n.operator_id and t.level = 0 and t.tile = n.tile and t.report_ids is null;
    insert into predictu_dispatch.audit_head as h (operator_id, size, root, checkpoint)
    select n.operator_id, n.size, n.root, n.checkpoint
      from unnest(head_operators, sizes, roots, checkpoints) as n (operator_id, size, root, checkpoint)
        on conflict (operator_id) do update
       set size = excluded.size, root = excluded.root, checkpoint = excluded.checkpoint, updated_at = clock_timestamp();
    return query
        with stored as (
            insert into predictu_dispatch.audit_checkpoint (operator_id, size, checkpoint)
            select h.operator_id, h.size, h.checkpoint
              from predictu_dispatch.audit_head h
              left join lateral (
                       select c.size, c.signed_at from predictu_dispatch.audit_checkpoint c
                        where c.operator_id = h.operator_id order by c.size desc limit 1) newest on true
             where h.size > coalesce(newest.size, 0)
               and (newest.signed_at between date_trunc('minute', clock_timestamp()) and clock_timestamp()) is not true
            returning audit_checkpoint.operator_id
        )
        select true, h.operator_id, l.origin, h.size, h.root, h.checkpoint
          from stored s
          join predictu_dispatch.audit_head h on h.operator_id = s.operator_id
          join predictu_dispatch.audit_log l on l.operator_id = s.operator_id
         order by h.operator_id;
end $$;

revoke all on function predictu_dispatch.audit_append from public;
grant execute on function predictu_dispatch.audit_append to predictu_dispatcher;
