-- Returns the newest stored checkpoint of a log; no row if there is none.
create or replace function predictu_dispatch.witness_newest(operator_id text)
returns table (size bigint, checkpoint text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select c.size, c.checkpoint from predictu_dispatch.audit_checkpoint c
     where c.operator_id = witness_newest.operator_id order by c.size desc limit 1
$$;

revoke all on function predictu_dispatch.witness_newest from public;
grant execute on function predictu_dispatch.witness_newest to predictu_dispatcher;
