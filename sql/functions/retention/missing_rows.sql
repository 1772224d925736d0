-- Returns the rows of a detached audit partition, in some of its blocks, that the audit no longer
-- has: whether each is needed, whether its operator has a log, and its index there. leaf_index is
-- null if the row is not sealed. A repeated report has two rows of one id, and two indices in the
-- order in which they were written. An index that a removal has already is not returned.
create or replace function predictu_dispatch.missing_rows(
    part text, first_tid tid, end_tid tid, cutoff timestamptz)
returns table (row_tid tid, operator_id text, is_needed boolean, has_log boolean, leaf_index bigint)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return query execute format($statement$
        with missing as materialized (
            select s.ctid as row_tid, s.operator_id, uuid_send(s.report_id) as entry_id, s.started_at,
                   exists (select from predictu_dispatch.audit_log l where l.operator_id = s.operator_id) as has_log,
                   row_number() over (partition by s.operator_id, s.report_id order by s.verdict = 'late') as nth,
                   %2$s as is_needed
              from predictu_dispatch.%1$I s
             where s.ctid >= $1 and s.ctid < $2
               and not exists (
                   select from predictu_dispatch.attempt_record t
                    where t.operator_id = s.operator_id and t.request_id = s.request_id and t.attempt = s.attempt
                      and t.started_at = s.started_at and t.report_id = s.report_id
                      and (t.verdict = 'late') = (s.verdict = 'late'))
        ), spans as materialized (
            select m.operator_id, tstzrange(min(m.started_at), max(m.started_at), '[]') as span
              from missing m where m.has_log group by m.operator_id, date_trunc('minute', m.started_at, 'UTC')
        ), tiles as materialized (
            -- The concatenation reads the ids once, and not once for each substr().
            select near.operator_id, near.tile, near.report_ids || ''::bytea as ids
              from (select distinct t.operator_id, t.tile, t.report_ids
                      from spans s
                      join predictu_dispatch.audit_tile t
                        on t.operator_id = s.operator_id and t.level = 0
                       and int8range(hashtext(t.operator_id), hashtext(t.operator_id), '[]')
                           && int8range(hashtext(s.operator_id), hashtext(s.operator_id), '[]')
                       and tstzrange(t.started_from, t.started_until, '[]') && s.span) near
        ), leaves as materialized (
            select t.operator_id, t.tile * 256 + place.n as leaf_index, substr(t.ids, place.n * 16 + 1, 16) as entry_id
              from tiles t cross join lateral generate_series(0, octet_length(t.ids) / 16 - 1) as place (n)
        ), matching as (
            select l.operator_id, l.entry_id, l.leaf_index, count(*) over (partition by l.operator_id, l.entry_id) as copies
              from leaves l
             where (l.operator_id, l.entry_id) in (select m.operator_id, m.entry_id from missing m)
        ), free as (
            select l.operator_id, l.entry_id, l.leaf_index,
                   row_number() over (partition by l.operator_id, l.entry_id order by l.leaf_index) as nth
              from matching l
             where l.copies = 1
                or not exists (
                       select from predictu_dispatch.audit_removal_draft d
                        where d.operator_id = l.operator_id and d.part = $4 and d.piece = l.leaf_index / 4096
                          and d.leaf_indices @> l.leaf_index)
                   and not exists (
                       select from predictu_dispatch.audit_removal r
                        where r.operator_id = l.operator_id and r.leaf_indices @> l.leaf_index)
        )
        select m.row_tid, m.operator_id, m.is_needed, m.has_log, f.leaf_index
          from missing m
          left join free f on f.operator_id = m.operator_id and f.entry_id = m.entry_id and f.nth = m.nth
        $statement$, 'retired_' || part, predictu_dispatch.needed_rows())
      using first_tid, end_tid, cutoff, part;
end $$;

revoke all on function predictu_dispatch.missing_rows from public;
