-- Notifies the daemons when an interactive callback is committed; settlement callbacks are found by
-- polling. Commits with a NOTIFY queue behind one lock of the server until they are on disk. So while
-- one such commit is in progress, the others send none, and a notified daemon polls again shortly
-- after. Two sequences record which transaction that is: they need no lock, and no login can write them.
create or replace function predictu_dispatch.notify_due() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp as $$
declare
    context text;
    ignored bigint;
begin
    get diagnostics context = pg_context;
    -- One expression, because Postgres prepares each expression of a function again in every transaction.
    ignored := case
        -- Enqueued long before its commit: the daemons have read past it and must start over.
        when new.due_at < clock_timestamp() - interval '0.5 seconds'
            then predictu_dispatch.notify('predictu_dispatch_due', new.operator_id || ' behind')::integer
        -- No commit is waited for longer than 0.1 s: another deferred trigger may delay its end.
        when (date_part('epoch', clock_timestamp()) * 1000)::bigint
             - pg_sequence_last_value('predictu_dispatch.notifier_began_ms') between 0 and 100
             and current_setting('transaction_isolation') = 'read committed'
             and not pg_visible_in_snapshot(pg_sequence_last_value('predictu_dispatch.notifier_xid')::text::xid8,
                                            pg_current_snapshot())
            then null
        when not predictu_dispatch.notify('predictu_dispatch_due', new.operator_id) then null
        -- Not if SET CONSTRAINTS fired this trigger, because its transaction may stay open.
        when position(E'\n' in context) = 0 and coalesce(current_query(), '') not ilike '%constraints%'
            then setval('predictu_dispatch.notifier_xid', pg_current_xact_id()::text::bigint)
                 + 0 * setval('predictu_dispatch.notifier_began_ms', (date_part('epoch', clock_timestamp()) * 1000)::bigint)
    end;
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
