-- Writes a row of intervention. `before` and `after` are the row of the callback, the operator or the
-- difference as JSON; the columns on which manual actions depend are kept. The database adds login and address.
create or replace function predictu_dispatch.record_intervention(
    action text, before jsonb, after jsonb, reason text, done_by text, done_at timestamptz
) returns void language sql set search_path = pg_catalog, pg_temp as $$
    insert into predictu_dispatch.intervention
           (operator_id, request_id, bet_id, action, reason, done_by, done_at, before, after)
    select before ->> 'operator_id', (before ->> 'request_id')::uuid, before ->> 'bet_id', action, reason, done_by, done_at,
           (select jsonb_object_agg(b.key, b.value) from jsonb_each(before) b where b.key = any (decisive.columns)),
           (select jsonb_object_agg(a.key, a.value) from jsonb_each(after) a where a.key = any (decisive.columns))
      from (values (array['state', 'reason', 'effect', 'attempts', 'review_since', 'warning', 'paused_at',
                          'paused_by', 'pause_reason', 'retired_at', 'retired_by', 'retire_reason',
                          'item_id', 'run_id', 'key', 'class', 'day', 'amounts', 'currency', 'disputed']
                   -- A difference must be readable when its run is gone.
                   || case when before ? 'item_id' then array['method', 'player_id', 'transaction_id'] end)) decisive (columns)
$$;

revoke all on function predictu_dispatch.record_intervention from public;
