-- The daemons that run, and the last heartbeat of any.
select coalesce(array_agg(d.instance order by d.instance)
                filter (where d.seen_at between now() - predictu_dispatch.heartbeat_timeout() and now() + interval '1 second'),
                '{}') as running,
       max(d.seen_at) as last_seen_at
  from predictu_dispatch.daemon d
