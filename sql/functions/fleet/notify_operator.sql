-- Notifies the daemons that an operator's circuit, pause or backoff has changed. A hint only: they
-- also poll every second.
create or replace function predictu_dispatch.notify_operator() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform predictu_dispatch.notify('predictu_dispatch_operator', new.operator_id);
    return null;
end $$;

revoke all on function predictu_dispatch.notify_operator from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.operator'::regclass and tgname = 'operator_notify_change') then
        create trigger operator_notify_change after update on predictu_dispatch.operator
            for each row when (
            (old.circuit, old.paused_at, old.interactive_backoff_until, old.settlement_backoff_until, old.enabled)
            is distinct from
            (new.circuit, new.paused_at, new.interactive_backoff_until, new.settlement_backoff_until, new.enabled)
        )
            execute function predictu_dispatch.notify_operator();
    end if;
end $$;
