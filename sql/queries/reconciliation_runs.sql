-- Runs, the newest first, also those that have not finished.
-- $1 operator_id, or null for any; $2 limit
select r.operator_id, r.run_id, r.first_day, r.last_day, r.time_zone, r.started_at, r.finished_at, r.is_complete,
       r.lines_read, r.lines_ignored, r.lines_unreadable, r.opened, r.closed, r.done_by, r.database_role,
       (select count(*) from predictu_dispatch.reconciliation_open o
         where o.operator_id = r.operator_id and o.run_id = r.run_id) as open_differences
  from predictu_dispatch.reconciliation_run r
 where $1::text is null or r.operator_id = $1
 order by r.started_at desc, r.run_id
 limit $2
