-- Removes the lines of a run that does not finish.
-- $1 operator_id, $2 run_id
delete from predictu_dispatch.reconciliation_line l where l.operator_id = $1 and l.run_id = $2
