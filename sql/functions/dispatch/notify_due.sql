-- Notifies the daemons when an interactive callback is committed; settlement callbacks are found by
-- polling. Commits with a NOTIFY queue behind one lock of the server until they are on disk, so
-- concurrent commits send a single NOTIFY, and a notified daemon polls again shortly after. The
-- trigger is deferred to the commit, so that an open transaction does not suppress the
-- notifications of others.
create or replace function predictu_dispatch.notify_due() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if new.due_at < clock_timestamp() - interval '0.5 seconds' then
        -- Enqueued long before its commit: the daemons have read past it and must start over.
        perform pg_notify('predictu_dispatch_due', new.operator_id || ' behind');
    elsif pg_try_advisory_xact_lock(hashtext('predictu_dispatch.notify_due')) then
        perform pg_notify('predictu_dispatch_due', new.operator_id);
    end if;
    return null;
end $$;

revoke all on function predictu_dispatch.notify_due from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.callback'::regclass and tgname = 'callback_notify_due') then
        create constraint trigger callback_notify_due after insert on predictu_dispatch.callback
            deferrable initially deferred
            for each row when (new.state = 'ready' and new.lane = 'interactive')
            execute function predictu_dispatch.notify_due();
    end if;
end $$;
