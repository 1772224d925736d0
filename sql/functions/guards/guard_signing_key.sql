-- Refuses every change of signing_key except one, for every role including the owner: a key is retired
-- once.
create or replace function predictu_dispatch.guard_signing_key() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op = 'UPDATE' and old.retired_at is null and new.retired_at is not null then
        old.retired_at := new.retired_at;
        old.retired_id := new.retired_id;
        old.retired_in := new.retired_in;
        if old is not distinct from new then
            return new;
        end if;
    end if;
    raise exception using errcode = 'PD900',
        message = format('signing_key is append-only: %s is refused', tg_op),
        hint = 'The only change is that a key is retired, once: retire_signing_key().';
end $$;

revoke all on function predictu_dispatch.guard_signing_key from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.signing_key'::regclass and tgname = 'signing_key_append_only') then
        create trigger signing_key_append_only before update or delete on predictu_dispatch.signing_key
            for each row execute function predictu_dispatch.guard_signing_key();
        alter table predictu_dispatch.signing_key enable always trigger signing_key_append_only;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.signing_key'::regclass and tgname = 'signing_key_not_truncated') then
        create trigger signing_key_not_truncated before truncate on predictu_dispatch.signing_key
            for each statement execute function predictu_dispatch.guard_signing_key();
        alter table predictu_dispatch.signing_key enable always trigger signing_key_not_truncated;
    end if;
end $$;
