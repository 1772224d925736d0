-- A callback with everything that may keep it from being sent, as of one time: its operator, its
-- bet's other callback, its last attempt, the last intervention, the transaction that has locked its
-- row or its bet's. Several rows only if operators share a request_id.
-- $1 request_id; $2 operator_id, or null for any
select now() as at, c.request_id, c.operator_id, c.method, c.bet_id, c.lane, c.state, c.reason, c.effect,
       c.attempts, c.retry_stopped, c.operator_status, c.due_at, c.expires_at, c.review_since, c.leased_at,
       c.leased_by, c.lease_until,
       o.last_failure_at, o.last_failure_reason, o.last_failure_status, o.last_failure_location,
       failed.last_failure_answer, failed.last_failure_error,
       o.enabled, o.circuit, o.circuit_since, o.consecutive_failures, o.ping_at,
       case c.lane when 'interactive' then o.interactive_backoff_until else o.settlement_backoff_until
       end as backoff_until,
       o.paused_at, o.paused_by, o.pause_reason,
       ping.request_id as ping_request_id, ping.method as ping_method, ping.state as ping_state,
       ping.reason as ping_reason,
       other.request_id as other_request_id, other.method as other_method, other.state as other_state,
       other.reason as other_reason,
       tried.attempt as last_attempt_number, tried.reason as last_attempt_reason,
       tried.finished_at as last_attempt_finished_at, tried.response_status as last_attempt_status,
       tried.location as last_attempt_location, tried.answer as last_attempt_answer,
       tried.error as last_attempt_error,
       done.action as last_intervention_action, done.done_by as last_intervention_done_by,
       done.done_at as last_intervention_done_at, done.reason as last_intervention_reason,
       locker.locked as row_locker_locked, locker.pid as row_locker_pid,
       coalesce(locker.application_name, '') as row_locker_application, locker.gid as row_locker_gid,
       locker.owner as row_locker_owner
  from predictu_dispatch.callback c
  join predictu_dispatch.operator o on o.operator_id = c.operator_id
  left join predictu_dispatch.callback ping
    on ping.operator_id = o.operator_id and ping.request_id = o.ping_request_id
  left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
  left join predictu_dispatch.callback other
    on other.operator_id = b.operator_id
   and other.request_id =
       -- A cancelled terminal has been replaced by another, usually a rollback.
       case when c.method = 'BET_MAKE' or (c.state = 'cancelled' and b.terminal_request_id <> c.request_id)
            then b.terminal_request_id else b.placement_request_id end
  left join lateral (
      select a.attempt, a.reason, a.finished_at, a.response_status, a.error,
             (select header ->> 1 from jsonb_array_elements(a.response_headers) as headers (header)
               where lower(header ->> 0) = 'location' limit 1) as location,
             substring(a.response_body from 1 for 1000) as answer
        from predictu_dispatch.attempt a
       where a.operator_id = c.operator_id and a.request_id = c.request_id and a.verdict <> 'late'
       order by a.attempt desc limit 1
  ) tried on true
  left join lateral (
      -- The beginning is enough for a line on a screen.
      select substring(a.response_body from 1 for 1000) as last_failure_answer, a.error as last_failure_error
        from predictu_dispatch.attempt a
       where o.circuit <> 'closed' and a.operator_id = o.operator_id and a.request_id = o.last_failure_request_id
         and a.attempt = o.last_failure_attempt and a.verdict <> 'late'
       limit 1
  ) failed on true
  left join lateral (
      select i.action, i.done_by, i.done_at, i.reason
        from predictu_dispatch.intervention i
       -- What is said about a difference changes no callback.
       where i.operator_id = c.operator_id and i.request_id = c.request_id and i.action not in ('explain', 'accept')
       order by i.done_at desc limit 1
  ) done on true
  left join lateral (
      -- Claims skip a locked callback; settlements and deadlines skip a locked bet as well.
      select case l.transactionid when c.xmax then 'callback' else 'bet' end as locked, l.pid, a.application_name,
             p.gid, p.owner::text as owner
        from pg_catalog.pg_locks l
        left join pg_catalog.pg_stat_activity a on a.pid = l.pid
        left join pg_catalog.pg_prepared_xacts p on p.transaction = l.transactionid
       where c.state in ('ready', 'in_flight') and l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
         and l.granted and l.transactionid in (c.xmax, b.xmax)
       order by locked desc limit 1
  ) locker on true
 where c.request_id = $1
   -- One primary key lookup for each operator; without it, the whole table would be scanned.
   and c.operator_id = any (array(
       select known.operator_id from predictu_dispatch.operator known
        where $2::text is null or known.operator_id = $2
   ))
 order by c.operator_id
