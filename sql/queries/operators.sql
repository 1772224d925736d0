-- The operators with their state and last failure, and their limits over the fleet as the files of
-- the running daemons have them.
select o.operator_id, o.enabled, o.health, o.circuit,
       greatest(extract(epoch from now() - o.circuit_since), 0)::double precision as circuit_for_s, o.consecutive_failures, o.last_success_at, o.last_failure_at,
       extract(epoch from o.ping_at - now())::double precision as ping_in_s, o.paused_at,
       greatest(extract(epoch from now() - o.paused_at), 0)::double precision as paused_for_s, o.paused_by, o.pause_reason,
       o.interactive_backoff_until, o.settlement_backoff_until,
       greatest(extract(epoch from o.interactive_backoff_until - now()), 0)::double precision as interactive_backoff_for_s,
       greatest(extract(epoch from o.settlement_backoff_until - now()), 0)::double precision as settlement_backoff_for_s,
       served.daemons, served.interactive_slots, served.settlement_slots, nullif(served.requests_per_s, 0) as requests_per_s, o.updated_at,
       served.unreachable_from, o.last_failure_reason, o.last_failure_status, o.last_failure_location,
       failed.last_failure_answer
  from predictu_dispatch.operator o
 cross join lateral (
     select count(*) as daemons, max(s.interactive_max) as interactive_slots, max(s.settlement_max) as settlement_slots,
            max(s.requests_per_s_max) as requests_per_s,
            array_agg(s.instance order by s.instance) filter (where s.unreachable_since is not null) as unreachable_from
       from predictu_dispatch.share s
       join predictu_dispatch.daemon d on d.instance = s.instance
        and d.seen_at between now() - predictu_dispatch.heartbeat_timeout() and now() + interval '1 second'
      where s.operator_id = o.operator_id
 ) served
  left join lateral (
      -- The beginning is enough for a line on a screen.
      select substring(a.response_body from 1 for 1000) as last_failure_answer
        from predictu_dispatch.attempt a
       where (o.circuit <> 'closed' or o.consecutive_failures > 0)
         and a.operator_id = o.operator_id and a.request_id = o.last_failure_request_id
         and a.attempt = o.last_failure_attempt and a.verdict <> 'late'
       limit 1
  ) failed on true
 where o.retired_at is null
 order by o.operator_id
