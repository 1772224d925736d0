-- Refuses UPDATE, DELETE and TRUNCATE of the currencies, for every role including the owner: other
-- digits would change the value of every amount that is stored.
create or replace function predictu_dispatch.refuse_currency_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD900',
        message = format('currencies are only added: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Other digits would change the value of stored amounts; add another code.';
end $$;

revoke all on function predictu_dispatch.refuse_currency_change from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.currency'::regclass and tgname = 'currency_append_only') then
        create trigger currency_append_only before update or delete on predictu_dispatch.currency
            for each row execute function predictu_dispatch.refuse_currency_change();
        alter table predictu_dispatch.currency enable always trigger currency_append_only;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.currency'::regclass and tgname = 'currency_not_truncated') then
        create trigger currency_not_truncated before truncate on predictu_dispatch.currency
            for each statement execute function predictu_dispatch.refuse_currency_change();
        alter table predictu_dispatch.currency enable always trigger currency_not_truncated;
    end if;
end $$;
