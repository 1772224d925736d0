-- Runs, the newest first, also those that have not finished.
-- $1 operator_id, or null for any; $2 limit
select r.operator_id, r.run_id, r.first_day, r.last_day, r.time_zone, r.started_at, r.finished_at, r.is_complete,
       r.lines_read, r.lines_ignored, r.lines_unreadable, r.opened, r.closed, r.done_by, r.database_role,
       -- Its session's name is seen by every login; on a standby there is none.
       r.finished_at is null and r.started_at > clock_timestamp() - interval '1 day'
           and (pg_is_in_recovery() or exists (
               select from pg_stat_activity a
                where a.datname = current_database() and a.usename = r.database_role
                  and a.application_name = 'predictu-dispatch reconcile')) as is_under_way,
       (select count(*) from predictu_dispatch.reconciliation_open o
         where o.operator_id = r.operator_id and o.run_id = r.run_id) as open_differences
  from predictu_dispatch.reconciliation_run r
 where $1::text is null or r.operator_id = $1
 order by r.started_at desc, r.run_id
 limit $2
