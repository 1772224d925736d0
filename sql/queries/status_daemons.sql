-- The daemons seen within a day, the running ones first. A daemon that stops in order deletes its
-- row.
select d.instance, d.host, d.pid, d.version, d.started_at, d.seen_at,
       extract(epoch from now() - d.seen_at)::double precision as seen_s_ago,
       d.seen_at > now() - predictu_dispatch.heartbeat_timeout() as is_live
  from predictu_dispatch.daemon d
 where d.seen_at > now() - interval '1 day'
 order by is_live desc, d.instance
