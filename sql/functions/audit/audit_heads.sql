-- Returns the head of each log, the cosignatures of its checkpoint, and for how long nothing was sealed.
create or replace function predictu_dispatch.audit_heads()
returns table (unsealed_s double precision, operator_id text, size bigint, checkpoint text, cosignatures text[])
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select greatest(0, extract(epoch from clock_timestamp() - p.sealed_at)), h.operator_id, h.size, h.checkpoint,
           array(select c.line from predictu_dispatch.audit_cosignature c
                  where c.operator_id = h.operator_id and c.size = h.size order by c.witness)
      from predictu_dispatch.audit_position p
      left join predictu_dispatch.audit_head h on true
$$;

revoke all on function predictu_dispatch.audit_heads from public;
grant execute on function predictu_dispatch.audit_heads to predictu_dispatcher;
