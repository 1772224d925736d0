-- The parts of the audit that are old, with the step that is next for each.
-- $1 months to keep
select part, step, rows_estimated, bytes from predictu_dispatch.expired_audit($1)
