-- The state of operators: circuit, pause, backoff, and the last PING.
-- $1 operator ids
select o.operator_id, o.revision, o.circuit, o.consecutive_failures, o.last_success_at is not null as ever_succeeded,
       extract(epoch from now() - o.circuit_since)::double precision as circuit_age_s,
       extract(epoch from o.ping_at - now())::double precision as ping_in_s, o.ping_request_id,
       case when o.ping_request_id is not null then predictu_dispatch.ping_state(o.operator_id, o.ping_request_id) end as ping_state,
       o.paused_at is not null as is_paused,
       o.last_failure_reason, o.last_failure_status, o.last_failure_location, o.last_failure_request_id,
       o.last_failure_attempt,
       coalesce(extract(epoch from o.interactive_backoff_until - now()), 0)::double precision as interactive_backoff_s,
       coalesce(extract(epoch from o.settlement_backoff_until - now()), 0)::double precision as settlement_backoff_s
  from predictu_dispatch.operator o
 where o.operator_id = any ($1)
