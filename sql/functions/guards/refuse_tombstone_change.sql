-- Refuses UPDATE, DELETE and TRUNCATE of the tombstones, for every role including the owner.
create or replace function predictu_dispatch.refuse_tombstone_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD900',
        message = format('tombstones are append-only: %s on %s is refused', tg_op, tg_table_name),
        hint = 'These rows prevent that an old request_id causes a second debit.';
end $$;

revoke all on function predictu_dispatch.refuse_tombstone_change from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.request_tombstone'::regclass and tgname = 'request_tombstone_append_only') then
        create trigger request_tombstone_append_only before update or delete on predictu_dispatch.request_tombstone
            for each row execute function predictu_dispatch.refuse_tombstone_change();
        alter table predictu_dispatch.request_tombstone enable always trigger request_tombstone_append_only;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.request_tombstone'::regclass and tgname = 'request_tombstone_not_truncated') then
        create trigger request_tombstone_not_truncated before truncate on predictu_dispatch.request_tombstone
            for each statement execute function predictu_dispatch.refuse_tombstone_change();
        alter table predictu_dispatch.request_tombstone enable always trigger request_tombstone_not_truncated;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.bet_tombstone'::regclass and tgname = 'bet_tombstone_append_only') then
        create trigger bet_tombstone_append_only before update or delete on predictu_dispatch.bet_tombstone
            for each row execute function predictu_dispatch.refuse_tombstone_change();
        alter table predictu_dispatch.bet_tombstone enable always trigger bet_tombstone_append_only;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.bet_tombstone'::regclass and tgname = 'bet_tombstone_not_truncated') then
        create trigger bet_tombstone_not_truncated before truncate on predictu_dispatch.bet_tombstone
            for each statement execute function predictu_dispatch.refuse_tombstone_change();
        alter table predictu_dispatch.bet_tombstone enable always trigger bet_tombstone_not_truncated;
    end if;
end $$;
