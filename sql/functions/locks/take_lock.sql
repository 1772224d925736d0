-- Takes one of our locks until the transaction ends. If another transaction has it, waits for it, or
-- returns false if `waits` is false.
create or replace function predictu_dispatch.take_lock(name text, waits boolean) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    insert into predictu_dispatch.lock (name) values (take_lock.name) on conflict do nothing;
    if waits then
        -- Written, because in another isolation level than read committed the next one then gets
        -- 40001, instead of deciding on a snapshot that is older than its lock.
        update predictu_dispatch.lock l set name = l.name where l.name = take_lock.name;
    else
        perform from predictu_dispatch.lock l where l.name = take_lock.name for no key update skip locked;
    end if;
    return found;
end $$;

revoke all on function predictu_dispatch.take_lock from public;
