-- How far a PING has come, and what may delay it: Retry-After, a pause, no running daemon.
-- $1 operator_id; $2 request_id
select c.operator_id, c.request_id, c.state, c.reason, c.attempts, c.created_at, c.leased_at,
       extract(epoch from c.leased_at - c.created_at)::double precision * 1000 as waited_ms,
       extract(epoch from c.expires_at - now())::double precision as expires_in_s,
       case when o.interactive_backoff_until > now() then o.interactive_backoff_until end as backoff_until, o.paused_at,
       (select max(d.seen_at) from predictu_dispatch.daemon d) as daemon_seen_at,
       exists (select from predictu_dispatch.daemon d
                where d.seen_at between now() - predictu_dispatch.heartbeat_timeout()
                                    and now() + interval '1 second') as daemon_is_live
  from predictu_dispatch.callback c
  join predictu_dispatch.operator o on o.operator_id = c.operator_id
 where c.operator_id = $1 and c.request_id = $2
