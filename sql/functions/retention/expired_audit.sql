-- Lists the partitions of the audit that are old, with the next step for each: replace or drop. A
-- partition is named by its month, 2024_01, or is default. attempt_<part> is attached, kept_<part>
-- is its successor while it is filled, retired_<part> was replaced.
create or replace function predictu_dispatch.expired_audit(keep_months integer, only_part text default null)
returns table (part text, step text, rows_estimated bigint, bytes bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
begin
    return query
    select named.part, case named.kind when 'attempt' then 'replace' else 'drop' end,
           greatest(named.reltuples, 0)::bigint, pg_total_relation_size(named.oid)
      from (select c.oid, c.reltuples, split_part(c.relname::text, '_', 1) as kind,
                   substring(c.relname::text from '_(.*)$') as part,
                   exists (select from pg_inherits i where i.inhrelid = c.oid) as is_attached
              from pg_class c
             where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind = 'r'
               and c.relname ~ '^(attempt|retired)_([0-9]{4}_[0-9]{2}|default)$') named
     where (named.kind = 'attempt') = named.is_attached
       and case when named.part <> coalesce(only_part, named.part) then false
                when named.kind = 'retired' then true
                when named.part <> 'default'
                then (to_date(named.part, 'YYYY_MM') + interval '1 month') at time zone 'UTC' <= cutoff
                -- The default partition goes when all of its rows are old.
                else exists (select from predictu_dispatch.attempt_default)
                     and not exists (select from predictu_dispatch.attempt_default d where d.started_at >= cutoff) end
     order by named.kind desc, named.part;
end $$;

revoke all on function predictu_dispatch.expired_audit from public;
grant execute on function predictu_dispatch.expired_audit to predictu_retention;
