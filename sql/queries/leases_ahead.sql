-- Attempts whose lease began later than now, so the clock was set back. The columns are those of
-- expired_leases.sql. A claim that commits during this statement began a moment ago at most.
-- $1 maximum rows
select c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts as attempt, c.budget_from, c.effect, c.reason,
       '{}' as params, c.created_at, c.due_at,
       extract(epoch from c.expires_at - c.leased_at)::double precision as expires_in_s, c.leased_at,
       extract(epoch from c.lease_until - c.leased_at)::double precision as lease_s, c.amount_format,
       null::integer as minor_digits, null::double precision as placement_ended_s_ago, c.leased_by, now() as reaped_at
  from predictu_dispatch.callback c
 where c.state = 'in_flight' and c.lease_until > now() + interval '5 seconds' and c.leased_at > now() + interval '5 seconds'
 order by c.lease_until limit $1
