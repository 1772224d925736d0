-- compatible_from: 0001
-- heartbeat() has parameters with defaults, so that earlier releases still call it.
drop function if exists predictu_dispatch.heartbeat(text, uuid, text, integer, text, text[], integer[], integer[],
    double precision[], integer[], integer[], double precision[], integer);

-- By how much the database's clock is ahead of the clock of the daemon's host; null if not known.
alter table predictu_dispatch.daemon add column clock_ahead_s double precision;
