-- How far PINGs have come, and what may delay each: Retry-After, a pause, no daemon that serves it.
-- $1 operator ids; $2 the request ids of their PINGs
select c.operator_id, c.request_id, c.state, c.reason, c.attempts, c.created_at, c.leased_at,
       extract(epoch from c.leased_at - c.created_at)::double precision * 1000 as waited_ms,
       extract(epoch from c.expires_at - now())::double precision as expires_in_s,
       case when o.interactive_backoff_until > now() then o.interactive_backoff_until end as backoff_until, o.paused_at,
       exists (select from predictu_dispatch.share s
                 join predictu_dispatch.daemon d on d.instance = s.instance
                where s.operator_id = c.operator_id
                  and d.seen_at between now() - predictu_dispatch.heartbeat_timeout()
                                    and now() + interval '1 second') as daemon_is_live
  from unnest($1::text[], $2::uuid[]) as sent (operator_id, request_id)
  join predictu_dispatch.callback c on c.operator_id = sent.operator_id and c.request_id = sent.request_id
  join predictu_dispatch.operator o on o.operator_id = c.operator_id
 order by c.operator_id
