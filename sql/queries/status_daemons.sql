-- The daemons seen within a day, the running ones first. A daemon that stops in order deletes its
-- row.
select d.instance, d.host, d.pid, d.version, d.started_at, d.seen_at,
       greatest(extract(epoch from now() - d.seen_at), 0)::double precision as seen_s_ago, d.clock_ahead_s,
       d.seen_at between now() - predictu_dispatch.heartbeat_timeout() and now() + interval '1 second' as is_live
  from predictu_dispatch.daemon d
 where d.seen_at > now() - interval '1 day'
 order by is_live desc, d.instance
