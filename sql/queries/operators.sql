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
       case when o.last_failure_at is not null
            then greatest(extract(epoch from now() - o.last_failure_at), 0)::double precision end as last_failure_s_ago,
       o.last_failure_request_id, failed.last_failure_answer, failed.last_failure_error,
       case when o.last_success_at is not null
            then greatest(extract(epoch from now() - o.last_success_at), 0)::double precision end as last_success_s_ago,
       oldest.oldest_request_id
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
      select substring(a.response_body from 1 for 1000) as last_failure_answer, a.error as last_failure_error
        from predictu_dispatch.attempt a
       where (o.circuit <> 'closed' or o.consecutive_failures > 0 or served.unreachable_from is not null)
         and a.operator_id = o.operator_id and a.request_id = o.last_failure_request_id
         and a.attempt = o.last_failure_attempt and a.verdict <> 'late'
       limit 1
  ) failed on true
  left join lateral (
      -- The callback that has been due longest; a lookup at the head of an index for each lane.
      select head.request_id as oldest_request_id
        from unnest(array['interactive', 'settlement']) as lane (name)
       cross join lateral (
           select c.request_id, c.due_at from predictu_dispatch.callback c
            where c.operator_id = o.operator_id and c.lane = lane.name and c.state = 'ready' and c.due_at <= now()
            order by c.due_at limit 1) head
       order by head.due_at limit 1
  ) oldest on true
 where o.retired_at is null
 order by o.operator_id
