-- Returns for each of these witnesses and each log: for how long the oldest checkpoint that it has
-- not cosigned has been stored, 0 if there is none, and whether it refuses the log.
create or replace function predictu_dispatch.witness_figures(witnesses text[])
returns table (operator_id text, witness text, behind_s double precision, is_refused boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select h.operator_id, named.witness,
           greatest(coalesce(extract(epoch from clock_timestamp() - waiting.signed_at), 0), 0)::double precision,
           coalesce(w.is_refused, false)
      from unnest(witnesses) as named (witness)
     cross join predictu_dispatch.audit_head h
      left join predictu_dispatch.audit_witness w on w.operator_id = h.operator_id and w.witness = named.witness
      left join lateral (
          select c.signed_at from predictu_dispatch.audit_checkpoint c
           where c.operator_id = h.operator_id and c.size > coalesce(w.size, 0) order by c.size limit 1) waiting on true
$$;

revoke all on function predictu_dispatch.witness_figures from public;
grant execute on function predictu_dispatch.witness_figures to predictu_dispatcher;
