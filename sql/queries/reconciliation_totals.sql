-- What a run found, for each class, currency and accounting day.
-- $1 operator_id, $2 run_id
select t.class, t.currency, t.day, t.items, t.rows_ours, t.rows_theirs, t.ours, t.theirs, t.disputed, t.owed
from predictu_dispatch.reconciliation_total t
where t.operator_id = $1 and t.run_id = $2
order by t.class, t.currency, t.day
