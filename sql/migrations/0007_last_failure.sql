-- compatible_from: 0001
-- An operator's row names the last failure, so that a log line and every screen can say why its
-- circuit opened; the audit has the answer. A share says since when its daemon cannot connect.

alter table predictu_dispatch.operator
    add column last_failure_reason text,
    add column last_failure_status integer,
    -- The Location header of a redirect.
    add column last_failure_location text,
    -- The attempt's key in the audit.
    add column last_failure_request_id uuid,
    add column last_failure_attempt integer;
alter table predictu_dispatch.share add column unreachable_since timestamptz;

-- It has more parameters; older daemons leave them out.
drop function if exists predictu_dispatch.write_circuits(
    text[], bigint[], text[], text[], integer[], double precision[], double precision[], double precision[], boolean[],
    double precision[], double precision[]);
