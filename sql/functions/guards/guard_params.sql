-- Refuses a change of a callback's params. Apart from guard_callback(), because a statement that does
-- not name params must not read them: a callback whose params are unreadable must still end. Always
-- enabled, as guard_callback() is.
create or replace function predictu_dispatch.guard_params() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    -- Compared as bytes: 500 and 500.0 are equal numbers and different bodies.
    if record_image_ne(row(old.params), row(new.params)) then
        raise exception using errcode = 'PD900',
            message = format('the params of callback %s of operator %s (%s) must not change',
                             old.request_id, old.operator_id, old.method),
            hint = 'Every attempt sends the same bytes.';
    end if;
    return new;
end $$;

revoke all on function predictu_dispatch.guard_params from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.callback'::regclass and tgname = 'callback_params_guarded') then
        create trigger callback_params_guarded before update of params on predictu_dispatch.callback
            for each row execute function predictu_dispatch.guard_params();
        alter table predictu_dispatch.callback enable always trigger callback_params_guarded;
    end if;
end $$;
