-- Returns true if the same request was enqueued before, even if its callback was removed since.
-- Raises PD004 if the id stands for another request.
create or replace function predictu_dispatch.request_exists(operator_id text, request_id uuid, method text, params jsonb)
returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    earlier record;
begin
    -- A producer that cancels its wait for a synchronous standby leaves a commit that is visible
    -- and may still be lost. This lock writes WAL, so that this transaction's commit waits for the
    -- standby, and with it for the first commit. It blocks no other session.
    select c.method, c.params into earlier from predictu_dispatch.callback c
     where c.operator_id = request_exists.operator_id and c.request_id = request_exists.request_id for key share;
    if found then
        if earlier.method = method and earlier.params is not distinct from params then
            return true;
        end if;
    else
        -- A statement of its own sees the tombstone of a removal that the lock waited for.
        select r.method, r.content into earlier from predictu_dispatch.get_request_tombstone(operator_id, request_id) r;
        if not found then
            return false;
        elsif earlier.method = method and earlier.content = predictu_dispatch.params_digest(params) then
            return true;
        end if;
    end if;
    raise exception using errcode = 'PD004',
        message = format('request_id %s of operator %s is already used by another %s', request_id, operator_id,
                         earlier.method),
        hint = 'Repeat an id only with the same method and params; use a new id for a new callback.';
end $$;

revoke all on function predictu_dispatch.request_exists from public;
