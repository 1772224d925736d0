-- Removes a daemon that stops, so that its shares are free at once.
create or replace function predictu_dispatch.deregister(instance text, session_id uuid) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
begin
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    delete from predictu_dispatch.daemon d where d.instance = deregister.instance and d.session_id = deregister.session_id;
    if found then
        delete from predictu_dispatch.share s where s.instance = deregister.instance;
    end if;
end $$;

revoke all on function predictu_dispatch.deregister from public;
grant execute on function predictu_dispatch.deregister to predictu_dispatcher;
