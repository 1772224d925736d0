-- Begins a run; its lines are copied next.
-- $1 operator_id, $2 first_day, $3 last_day, $4 time_zone, $5 day_starts, $6 the first moments of all
-- days and the period's end, $7 settle_s, $8 no_end_days, $9 done_by
select r.run_id, r.cut_at, r.started_at
from predictu_dispatch.begin_reconciliation($1, $2, $3, $4, $5, $6, $7, $8, $9) r
