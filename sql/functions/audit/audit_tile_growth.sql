-- Assigns new entries, given as arrays, to tiles after the heads of their operators' logs. Returns their
-- hashes and ids tile by tile, and the partial tiles of each log, which an append needs. `origin` is
-- null if the operator has no log yet. A log without entries begins with its start entry.
create or replace function predictu_dispatch.audit_tile_growth(
    operator_ids text[], written bigint[], entry_ids uuid[], started timestamptz[], leaves bytea[]
) returns table (operator_id text, origin text, size bigint, root bytea, level integer, tile bigint, is_new boolean,
                 hashes bytea, report_ids bytea, started_from timestamptz, started_until timestamptz)
language sql stable set search_path = pg_catalog, pg_temp set jit = off as $$
    with candidate as materialized (
        select c.operator_id collate "C" as operator_id, false as is_start, c.written_in, c.entry_id, c.started_at, c.leaf
          from unnest(operator_ids, written, entry_ids, started, leaves)
               as c (operator_id, written_in, entry_id, started_at, leaf)
        union all
        select l.operator_id, true, l.written_in, l.start_id, null,
               sha256(decode('00', 'hex') || predictu_dispatch.audit_start_entry(l))
          from predictu_dispatch.audit_log l
         where not exists (select from predictu_dispatch.audit_head h where h.operator_id = l.operator_id)
    ), growing as materialized (
        select g.operator_id, l.origin, coalesce(h.size, 0) as size, h.root
          from (select distinct c.operator_id from candidate c) g
          left join predictu_dispatch.audit_log l on l.operator_id = g.operator_id
          left join predictu_dispatch.audit_head h on h.operator_id = g.operator_id
    ), ordered as materialized (
        select c.operator_id, c.entry_id, c.started_at, c.leaf,
               row_number() over (partition by c.operator_id order by c.is_start desc, c.written_in nulls first,
                                  c.entry_id, c.leaf) - 1 as place
          from candidate c
    )
    select n.operator_id, g.origin, g.size, g.root, 0, n.tile, true, n.hashes, n.report_ids, n.started_from, n.started_until
      from (select t.operator_id, t.tile, string_agg(t.leaf, '' order by t.place) as hashes,
                   string_agg(uuid_send(t.entry_id), '' order by t.place) as report_ids,
                   min(t.started_at) as started_from, max(t.started_at) as started_until
              -- Sorted once for both aggregates.
              from (select o.*, (coalesce(h.size, 0) + o.place) >> 8 as tile
                      from ordered o left join predictu_dispatch.audit_head h on h.operator_id = o.operator_id
                     order by o.operator_id, tile, o.place) t
             group by t.operator_id, t.tile) n
      join growing g on g.operator_id = n.operator_id
    union all
    select g.operator_id, g.origin, g.size, g.root, s.level, t.tile, false, t.hashes, null, null, null
      from growing g
     cross join generate_series(0, 6) as s (level)
      join predictu_dispatch.audit_tile t
        on t.operator_id = g.operator_id and t.level = s.level and t.tile = g.size >> (8 * s.level + 8)
     where (g.size >> (8 * s.level)) % 256 <> 0
     order by 1, 5, 6, 7
$$;

revoke all on function predictu_dispatch.audit_tile_growth from public;
