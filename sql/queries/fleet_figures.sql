-- The figures of the last count, which is done now if it is due; null before the first. The usage of
-- the server's notification queue is that of now.
-- $1 instance
select figures, age_s, pg_notification_queue_usage() as notification_queue_usage
  from predictu_dispatch.fleet_figures($1)
