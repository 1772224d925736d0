-- Returns for each log its head, the cosignatures of its checkpoint, the age of its last verification
-- and the number of faults that it found; and the time since everything was sealed. If a log was never
-- verified, the age is that of the log. A log that was verified and no longer exists has no size.
create or replace function predictu_dispatch.audit_heads()
returns table (unsealed_s double precision, operator_id text, size bigint, checkpoint text, cosignatures text[],
               verified_s double precision, faults bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    -- One index lookup for each operator, because this is read every few seconds.
    with recursive verified (operator_id) as (
        select min(v.operator_id) from predictu_dispatch.audit_verification v
        union all
        select (select min(v.operator_id) from predictu_dispatch.audit_verification v where v.operator_id > o.operator_id)
          from verified o where o.operator_id is not null
    ), known as (
        select h.operator_id from predictu_dispatch.audit_head h
        union select v.operator_id from verified v where v.operator_id is not null
    )
    select greatest(0, extract(epoch from clock_timestamp() - p.sealed_at)), k.operator_id, h.size, h.checkpoint,
           array(select c.line from predictu_dispatch.audit_cosignature c
                  where c.operator_id = h.operator_id and c.size = h.size order by c.witness),
           greatest(0, extract(epoch from clock_timestamp() - coalesce(last.verified_at, l.started_at))), coalesce(last.faults, 0)
      from predictu_dispatch.audit_position p
      left join known k on true
      left join predictu_dispatch.audit_head h on h.operator_id = k.operator_id
      left join predictu_dispatch.audit_log l on l.operator_id = k.operator_id
      left join lateral (
          select v.verified_at, v.faults from predictu_dispatch.audit_verification v
           where v.operator_id = k.operator_id order by v.verified_at desc limit 1) last on true
$$;

revoke all on function predictu_dispatch.audit_heads from public;
grant execute on function predictu_dispatch.audit_heads to predictu_dispatcher;
