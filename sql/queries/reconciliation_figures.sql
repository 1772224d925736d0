-- The open differences and newest runs of the last reading, which is done now if it is due; null
-- before the first.
-- $1 instance
select figures, age_s from predictu_dispatch.reconciliation_figures($1)
