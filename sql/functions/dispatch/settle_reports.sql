-- Settles as settle(attempt_report[]) does. Daemons of releases before 0013_evidence.sql call it, and
-- their attempts have no peer and no signature.
create or replace function predictu_dispatch.settle(reports predictu_dispatch.report[])
returns setof predictu_dispatch.change language sql security definer set search_path = pg_catalog, pg_temp as $$
    select * from predictu_dispatch.settle(array(
        select (r.*, null, null, null, null, null)::predictu_dispatch.attempt_report from unnest(reports) r));
$$;

revoke all on function predictu_dispatch.settle(predictu_dispatch.report[]) from public;
grant execute on function predictu_dispatch.settle(predictu_dispatch.report[]) to predictu_dispatcher;
