-- Refuses UPDATE, DELETE and TRUNCATE of intervention, for every role including the owner.
create or replace function predictu_dispatch.refuse_intervention_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD900',
        message = format('intervention is append-only: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Rows of intervention are never changed or deleted.';
end $$;

revoke all on function predictu_dispatch.refuse_intervention_change from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.intervention'::regclass and tgname = 'intervention_append_only') then
        create trigger intervention_append_only before update or delete on predictu_dispatch.intervention
            for each row execute function predictu_dispatch.refuse_intervention_change();
        alter table predictu_dispatch.intervention enable always trigger intervention_append_only;
    end if;
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.intervention'::regclass and tgname = 'intervention_not_truncated') then
        create trigger intervention_not_truncated before truncate on predictu_dispatch.intervention
            for each statement execute function predictu_dispatch.refuse_intervention_change();
        alter table predictu_dispatch.intervention enable always trigger intervention_not_truncated;
    end if;
end $$;
