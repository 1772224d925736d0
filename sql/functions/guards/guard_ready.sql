-- Refuses a callback that becomes ready while its bet's state forbids sending it.
create or replace function predictu_dispatch.guard_ready() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    bet_state text := (select b.state from predictu_dispatch.bet b
                        where b.operator_id = new.operator_id and b.bet_id = new.bet_id);
begin
    if bet_state is distinct from (case when new.method = 'BET_MAKE' then 'placing' else 'closing' end) then
        raise exception using errcode = 'PD900',
            message = format('%s %s of operator %s must not be sent while its bet %s is %s',
                             new.method, new.request_id, new.operator_id, new.bet_id, coalesce(bet_state, 'unknown')),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes.';
    end if;
    return null;
end $$;

revoke all on function predictu_dispatch.guard_ready from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.callback'::regclass and tgname = 'callback_ready_when_inserted') then
        create trigger callback_ready_when_inserted after insert on predictu_dispatch.callback
            for each row when (new.bet_id is not null and new.state <> 'waiting')
            execute function predictu_dispatch.guard_ready();
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.callback'::regclass and tgname = 'callback_ready_when_released') then
        create trigger callback_ready_when_released after update of state on predictu_dispatch.callback
            for each row when (new.bet_id is not null and new.state = 'ready' and old.state not in ('ready', 'in_flight'))
            execute function predictu_dispatch.guard_ready();
    end if;
end $$;
