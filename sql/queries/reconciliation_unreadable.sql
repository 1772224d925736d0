-- The first unreadable lines of a run.
-- $1 operator_id; $2 run_id
select u.source, u.line, u.column_name, u.why
  from predictu_dispatch.reconciliation_unreadable u
 where u.operator_id = $1 and u.run_id = $2
 order by u.source, u.line
