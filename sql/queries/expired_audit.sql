-- The old partitions of the audit, with the next step for each.
-- $1 months to keep
select part, step, rows_estimated, bytes from predictu_dispatch.expired_audit($1)
