-- Returns each reason not to retire an operator, and what to do about it; no row if there is none.
-- with_bets also looks for bets without an end, for which it reads all bets of the operator.
create or replace function predictu_dispatch.why_not_retired(operator_id text, with_bets boolean)
returns table (fault text, advice text)
language sql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
    select format('its file is used by %s', string_agg(format('daemon %s on host %s', d.instance, d.host), ', '
                                                       order by d.instance)),
           format('Remove operators/%s.toml there and reload the daemon.', why_not_retired.operator_id)
      from predictu_dispatch.share s
      join predictu_dispatch.daemon d
        on d.instance = s.instance
       and d.seen_at between clock_timestamp() - predictu_dispatch.heartbeat_timeout()
                         and clock_timestamp() + interval '1 second'
     where s.operator_id = why_not_retired.operator_id
    having count(*) > 0
    union all
    -- Each state is a part of an index of its own.
    select format('callbacks that are not final: %s, for example %s',
                  string_agg(format('%s %s', unfinished.callbacks, unfinished.state), ', '), min(unfinished.example)),
           format('To list them: predictu-dispatch find --operator %s --state %s. To end a callback: predictu-dispatch '
                  'cancel if it was never attempted, else predictu-dispatch abandon.', why_not_retired.operator_id,
                  min(unfinished.state))
      from (select 'in_flight' as state, count(*) as callbacks, min(c.request_id::text) as example
              from predictu_dispatch.callback c
             where c.operator_id = why_not_retired.operator_id and c.state = 'in_flight'
            union all
            select 'ready', count(*), min(c.request_id::text) from predictu_dispatch.callback c
             where c.operator_id = why_not_retired.operator_id and c.state = 'ready'
            union all
            select 'waiting', count(*), min(c.request_id::text) from predictu_dispatch.callback c
             where c.operator_id = why_not_retired.operator_id and c.state = 'waiting') unfinished
     where unfinished.callbacks > 0
    having count(*) > 0
    union all
    select format('callbacks that need review: %s', count(*)),
           'To list what needs review: predictu-dispatch status --all. To end a review: predictu-dispatch resolve.'
      from predictu_dispatch.callback c
     where c.operator_id = why_not_retired.operator_id and c.review_since is not null
    having count(*) > 0
    union all
    -- A closing bet ends with its terminal callback, which is counted above until it is resolved.
    select format('bets that have not ended: %s, for example %s', count(*), min(b.bet_id)),
           format('To see a bet: predictu-dispatch show --bet %s BET_ID. To end a bet: rollback_bet() or a terminal callback.',
                  why_not_retired.operator_id)
      from predictu_dispatch.bet b
     where with_bets and b.operator_id = why_not_retired.operator_id and b.state in ('placing', 'open')
    having count(*) > 0
$$;

revoke all on function predictu_dispatch.why_not_retired from public;
