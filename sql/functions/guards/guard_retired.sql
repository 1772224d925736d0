-- Refuses a change that would use a retired operator again. Its circuit may still be written: a daemon of an
-- older release may have its file.
create or replace function predictu_dispatch.guard_retired() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD900',
        message = format('operator %s was retired at %s and must not be used again', old.operator_id,
                         predictu_dispatch.format_utc(old.retired_at)),
        hint = 'If it returns, give it a new operator_id.';
end $$;

revoke all on function predictu_dispatch.guard_retired from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.operator'::regclass and tgname = 'operator_stays_retired') then
        create trigger operator_stays_retired before update on predictu_dispatch.operator
            for each row when (old.retired_at is not null and
            (old.operator_id, old.enabled, old.config_fingerprint, old.paused_at, old.retired_at, old.retired_by,
             old.retire_reason)
            is distinct from
            (new.operator_id, new.enabled, new.config_fingerprint, new.paused_at, new.retired_at, new.retired_by,
             new.retire_reason))
            execute function predictu_dispatch.guard_retired();
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.operator'::regclass and tgname = 'operator_deleted_unless_retired') then
        create trigger operator_deleted_unless_retired before delete on predictu_dispatch.operator
            for each row when (old.retired_at is not null)
            execute function predictu_dispatch.guard_retired();
    end if;
end $$;
