-- Corrects times that are further ahead than can be written, because the clock was set back.
-- A callback that was not attempted yet is due now; a retry is due after the pause that follows from
-- its row, at most after the longest delay. The deadline of a bet keeps its length. delays_s are the
-- longest delays of a retry; due times up to ahead_s from now are not read, because retries are
-- there. Returns the operator of each row that was changed; locked rows are skipped.
create or replace function predictu_dispatch.correct_times(
    operator_ids text[], delays_s double precision[], interactive_backoffs_s double precision[],
    settlement_backoffs_s double precision[], ahead_s double precision
) returns setof text language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
    at timestamptz := clock_timestamp();
    -- A clock that is adjusted by less has not been set back.
    ahead timestamptz := at + interval '1 second';
    ahead_from timestamptz := at + ahead_s * interval '1 second';
begin
    return query
    with given as (
        -- Another daemon's file may have a longer delay; five minutes are the default.
        select given.operator_id, given.delay_s * interval '1 second' as delay,
               at + greatest(given.delay_s, 300) * interval '1 second' as latest
          from unnest(operator_ids, delays_s) as given (operator_id, delay_s)
    ), found as materialized (
        select c.operator_id, c.request_id, c.new_due_at
          from given
         cross join (values ('interactive'), ('settlement')) of_operator (lane)
         cross join lateral (
             select c.operator_id, c.request_id, pause.new_due_at
               from predictu_dispatch.callback c
              cross join lateral (
                  select at + case
                      when c.attempts = c.budget_from then interval '0'
                      -- The pause began at the earliest with the lease, on the clock before.
                      when c.leased_at > ahead and (c.due_at > c.leased_at or c.due_at > at + given.delay)
                          then greatest(least(c.due_at - c.leased_at, given.delay), interval '0')
                      when c.due_at > given.latest then given.delay
                      else c.due_at - at end as new_due_at) pause
              where c.operator_id = given.operator_id and c.lane = of_operator.lane and c.state = 'ready'
                and c.due_at > least(given.latest, ahead_from)
                and pause.new_due_at < c.due_at - interval '1 second'
              order by c.due_at desc limit 1000
                for no key update of c skip locked) c
    )
    update predictu_dispatch.callback c
       set due_at = found.new_due_at,
           -- Bets only. A late credit is better than none, and a manual retry needs its length.
           expires_at = case when c.lane = 'interactive' and c.created_at > ahead
                             then least(c.expires_at, at + (c.expires_at - c.created_at)) else c.expires_at end
      from found
     where c.operator_id = found.operator_id and c.request_id = found.request_id
    returning c.operator_id;

    return query
    with given as (
        select * from unnest(operator_ids, interactive_backoffs_s, settlement_backoffs_s)
                      as given (operator_id, interactive_s, settlement_s)
    ), locked as materialized (
        -- The row says when it was last written, and so how much of a backoff is left at most.
        select o.operator_id,
               at + least(given.interactive_s * interval '1 second', case when o.interactive_backoff_until > written.written_at
                          then o.interactive_backoff_until - written.written_at end) as interactive_until,
               at + least(given.settlement_s * interval '1 second', case when o.settlement_backoff_until > written.written_at
                          then o.settlement_backoff_until - written.written_at end) as settlement_until
          from predictu_dispatch.operator o
          join given on given.operator_id = o.operator_id
         cross join lateral (
             select greatest(o.circuit_since, o.last_success_at, o.last_failure_at, ahead) as written_at) written
         where o.circuit_since > ahead or o.last_success_at > ahead or o.last_failure_at > ahead
            or o.interactive_backoff_until > ahead + given.interactive_s * interval '1 second'
            or o.settlement_backoff_until > ahead + given.settlement_s * interval '1 second'
         order by o.operator_id for no key update of o skip locked
    )
    update predictu_dispatch.operator o
       set circuit_since = case when o.circuit_since > at then at else o.circuit_since end,
           last_success_at = case when o.last_success_at > at then at else o.last_success_at end,
           last_failure_at = case when o.last_failure_at > at then at else o.last_failure_at end,
           interactive_backoff_until = case when o.interactive_backoff_until > l.interactive_until
                                            then l.interactive_until else o.interactive_backoff_until end,
           settlement_backoff_until = case when o.settlement_backoff_until > l.settlement_until
                                           then l.settlement_until else o.settlement_backoff_until end,
           revision = o.revision + 1
      from locked l
     where o.operator_id = l.operator_id
    returning o.operator_id;
end $$;

revoke all on function predictu_dispatch.correct_times from public;
grant execute on function predictu_dispatch.correct_times to predictu_dispatcher;
