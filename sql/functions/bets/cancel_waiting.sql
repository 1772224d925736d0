-- Cancels a waiting terminal callback. With needs_review it is put on the review list.
create or replace function predictu_dispatch.cancel_waiting(
    operator_id text, request_id uuid, reason text, needs_review boolean
) returns setof predictu_dispatch.change language sql set search_path = pg_catalog, pg_temp as $$
    update predictu_dispatch.callback c
       set state = 'cancelled', reason = cancel_waiting.reason, finished_at = clock_timestamp(),
           review_since = case when needs_review then clock_timestamp() end
     where c.operator_id = cancel_waiting.operator_id and c.request_id = cancel_waiting.request_id
       and c.state = 'waiting'
    returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'cancelled', null::integer
$$;

revoke all on function predictu_dispatch.cancel_waiting from public;
