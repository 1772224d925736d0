-- Returns the reason why a callback is not on the review list, as text for a message.
create or replace function predictu_dispatch.why_not_in_review(locked predictu_dispatch.callback) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
    select case
        when locked.state in ('waiting', 'ready', 'in_flight') then format('it has not ended (%s)', locked.state)
        else coalesce((
            select format('%s resolved it at %s: %s', i.done_by, predictu_dispatch.format_utc(i.done_at), i.reason)
              from predictu_dispatch.intervention i
             where i.operator_id = locked.operator_id and i.request_id = locked.request_id and i.action = 'resolve'
             order by i.done_at desc limit 1
        ), format('it is %s and needs no review', locked.state))
    end
$$;

revoke all on function predictu_dispatch.why_not_in_review from public;
