-- Returns how many daemons serve an operator: no more than its rate allows. Each daemon may be one
-- request ahead. With at least 20/3 requests a second for each, the operator gets at most a fifth
-- more than its rate in any second.
create or replace function predictu_dispatch.serving_daemons(daemons bigint, requests_per_s double precision)
returns bigint language sql immutable parallel safe
return case when requests_per_s > 0 then greatest(least(daemons, floor(requests_per_s * 0.15)::bigint), 1)
            else daemons end;

revoke all on function predictu_dispatch.serving_daemons from public;
