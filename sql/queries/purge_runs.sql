-- Removes old runs of reconciliation; 0 if none is left.
-- $1 months to keep; $2 how many at most
select predictu_dispatch.purge_runs($1, $2) as runs
