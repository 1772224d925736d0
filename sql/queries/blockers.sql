-- The sessions that these ones wait for, and those that they wait for in turn. First those that wait
-- for no other one: they hold the locks. A pid of 0 is a prepared transaction. Other logins' times
-- are known only while they wait. Uses functions, because a view needs locks on more catalogs.
-- $1 pids, or null for all sessions of this login that wait
with recursive chain (pid, waiting_pid) as (
    select b.pid, w.pid
      from pg_stat_get_activity(null) w
      join pg_stat_get_activity(pg_backend_pid()) own on own.usesysid = w.usesysid
     cross join unnest(pg_blocking_pids(w.pid)) b (pid)
     where case when $1::integer[] is null then w.wait_event_type = 'Lock' else w.pid = any ($1) end
    union
    select b.pid, c.pid from chain c cross join unnest(pg_blocking_pids(c.pid)) b (pid)
)
select c.pid, pg_get_userbyid(a.usesysid)::text as login, a.application_name,
       exists (select from chain w where w.waiting_pid = c.pid) as is_waiting,
       coalesce(l.waitstart, a.xact_start) as since
  from (select distinct pid from chain) c
  left join pg_stat_get_activity(null) a on a.pid = c.pid
  left join lateral (select min(waitstart) as waitstart from pg_lock_status() where pid = c.pid and not granted) l on true
 order by is_waiting, c.pid
 limit 8
