-- The amounts of a run's items with another amount there: [{"currency", "day", "ours", "theirs"}].
-- $1 operator_id, $2 run_id
select i.amounts
from predictu_dispatch.reconciliation_item i
where i.operator_id = $1 and i.run_id = $2 and i.class = 'amount_differs'
