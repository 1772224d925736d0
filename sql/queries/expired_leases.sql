-- Attempts whose lease ran out without a report; ages are as of leased_at, like those of a claim. The operators take turns, so that
-- one whose bets somebody holds for long takes no place from the others.
-- $1 at most so many
select c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts as attempt, c.budget_from, c.effect, c.reason,
       c.params::text as params, c.created_at, c.due_at,
       extract(epoch from c.expires_at - c.leased_at)::double precision as expires_in_s, c.leased_at,
       extract(epoch from c.lease_until - c.leased_at)::double precision as lease_s, c.amount_format, null::integer as minor_digits,
       null::double precision as placement_ended_s_ago, c.leased_by, now() as reaped_at
  from predictu_dispatch.callback c
 where c.state = 'in_flight' and c.lease_until < now()
 order by row_number() over (partition by c.operator_id order by c.lease_until), c.lease_until
 limit $1
