-- Returns what abandon_callback() did to a callback, with its bet as it is now.
create or replace function predictu_dispatch.abandonment_of(operator_id text, request_id uuid, is_repeated boolean)
returns predictu_dispatch.abandonment
language sql volatile set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
    select c.operator_id, c.request_id, c.method, c.bet_id, c.state, c.effect, c.attempts, c.review_since is not null,
           b.state, case when c.method = 'BET_MAKE' and rollback.finished_at is null then rollback.request_id end,
           done.after ->> 'warning', done.done_at, done.done_by, done.reason, abandonment_of.is_repeated
      from predictu_dispatch.callback c
      left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
      left join predictu_dispatch.callback rollback
        on rollback.operator_id = b.operator_id and rollback.request_id = b.terminal_request_id
       and rollback.method = 'BET_ROLLBACK'
      left join lateral (
          select i.after, i.done_at, i.done_by, i.reason from predictu_dispatch.intervention i
           where i.operator_id = c.operator_id and i.request_id = c.request_id and i.action = 'abandon'
           order by i.done_at desc limit 1
      ) done on true
     where c.operator_id = abandonment_of.operator_id and c.request_id = abandonment_of.request_id
$$;

revoke all on function predictu_dispatch.abandonment_of from public;
