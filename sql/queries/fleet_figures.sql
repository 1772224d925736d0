-- The figures of the last count, which is done now if it is due; null before the first.
-- $1 instance
select figures, age_s from predictu_dispatch.fleet_figures($1)
