-- Returns what a daemon may use now: at most its fair share and at most what the others leave, but
-- never less than it still uses. `used` is what the daemon may use until it has the answer, so that
-- a share that it returns is really free.
create or replace function predictu_dispatch.granted_share(
    fair double precision, most double precision, others double precision, had double precision,
    used double precision
) returns double precision language sql immutable parallel safe
return greatest(least(fair, most - others), least(had, used), 0);

revoke all on function predictu_dispatch.granted_share from public;
