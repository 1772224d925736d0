-- Refuses UPDATE, DELETE and TRUNCATE of the audit, for every role including the owner. Retention
-- drops whole partitions.
create or replace function predictu_dispatch.refuse_audit_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD900',
        message = format('the audit is append-only: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Rows of the audit are never changed or deleted; retention drops whole partitions.';
end $$;

revoke all on function predictu_dispatch.refuse_audit_change from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.attempt_record'::regclass and tgname = 'attempt_append_only') then
        create trigger attempt_append_only before update or delete on predictu_dispatch.attempt_record
            for each row execute function predictu_dispatch.refuse_audit_change();
        alter table predictu_dispatch.attempt_record enable always trigger attempt_append_only;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.attempt_record'::regclass and tgname = 'attempt_not_truncated') then
        create trigger attempt_not_truncated before truncate on predictu_dispatch.attempt_record
            for each statement execute function predictu_dispatch.refuse_audit_change();
        alter table predictu_dispatch.attempt_record enable always trigger attempt_not_truncated;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.attempt_default'::regclass and tgname = 'attempt_not_truncated') then
        create trigger attempt_not_truncated before truncate on predictu_dispatch.attempt_default
            for each statement execute function predictu_dispatch.refuse_audit_change();
        alter table predictu_dispatch.attempt_default enable always trigger attempt_not_truncated;
    end if;
end $$;
