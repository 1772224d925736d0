-- Removes a callback from the review list permanently, after it was settled with the operator
-- manually. State and effect stay. Raises PD003, PD005, PD006.
create or replace function predictu_dispatch.resolve_callback(operator_id text, request_id uuid, reason text, by text)
returns predictu_dispatch.callback
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
    resolved predictu_dispatch.callback;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('resolve', reason, by);
    locked := predictu_dispatch.lock_callback('resolve', operator_id, request_id);
    if locked.review_since is null then
        perform predictu_dispatch.refuse_intervention('resolve', locked, predictu_dispatch.why_not_in_review(locked),
            'Only callbacks on the review list can be resolved; to list them: predictu-dispatch status');
    end if;
    update predictu_dispatch.callback c
       set review_since = null, note = concat_ws('; ', c.note, reason)
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into resolved;
    -- They may be unreadable.
    locked.params := null;
    resolved.params := null;
    perform predictu_dispatch.record_intervention('resolve', to_jsonb(locked), to_jsonb(resolved), reason, by,
                                                  clock_timestamp());
    return resolved;
end $$;

revoke all on function predictu_dispatch.resolve_callback from public;
revoke all on function predictu_dispatch.resolve_callback from predictu_dispatcher;
grant execute on function predictu_dispatch.resolve_callback to predictu_operations;
