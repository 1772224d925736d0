-- Refuses a role_name that no role has: a login without rows may act for every operator, so a
-- misspelt name would restrict no login.
create or replace function predictu_dispatch.guard_producer_scope() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from pg_roles r where r.rolname = new.role_name) then
        raise exception using errcode = 'PD003',
            message = format('producer_scope names the role %s, which does not exist', quote_ident(new.role_name)),
            hint = 'Give the name of the login, as in session_user.';
    end if;
    return new;
end $$;

revoke all on function predictu_dispatch.guard_producer_scope from public;

do $$ begin
    if not exists (select from pg_trigger
                    where tgrelid = 'predictu_dispatch.producer_scope'::regclass and tgname = 'producer_scope_names_a_role') then
        create trigger producer_scope_names_a_role before insert or update on predictu_dispatch.producer_scope
            for each row execute function predictu_dispatch.guard_producer_scope();
    end if;
end $$;
