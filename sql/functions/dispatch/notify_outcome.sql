-- Notifies the producer that waits for an interactive callback. A hint only: a producer that misses
-- it asks outcome() again.
create or replace function predictu_dispatch.notify_outcome() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform predictu_dispatch.notify('predictu_dispatch_outcome', new.operator_id || ' ' || new.request_id);
    return null;
end $$;

revoke all on function predictu_dispatch.notify_outcome from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.callback'::regclass and tgname = 'callback_notify_outcome') then
        create trigger callback_notify_outcome after update of state on predictu_dispatch.callback
            for each row when (new.lane = 'interactive' and new.finished_at is not null and old.finished_at is null)
            execute function predictu_dispatch.notify_outcome();
    end if;
end $$;
