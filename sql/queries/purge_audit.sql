-- The next step for an old partition of the audit; is_done with the last one. Raises 55P03 if a
-- lock is not available: try again later.
-- $1 months to keep; $2 part; $3 blocks
select step, scanned, needed, is_done from predictu_dispatch.purge_audit($1, $2, $3)
