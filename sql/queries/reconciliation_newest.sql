-- The newest finished run of an operator.
-- $1 operator_id
select r.run_id, r.first_day, r.last_day, r.is_complete, r.lines_unreadable
  from predictu_dispatch.reconciliation_run r
 where r.operator_id = $1 and r.finished_at is not null
 order by r.finished_at desc limit 1
