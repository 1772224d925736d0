-- Writes a row of intervention.
create or replace function predictu_dispatch.record_intervention(
    operator_id text, request_id uuid, action text, reason text, done_by text, done_at timestamptz
) returns void language sql as $$
    insert into predictu_dispatch.intervention (operator_id, request_id, action, reason, done_by, done_at)
    values (operator_id, request_id, action, reason, done_by, done_at)
$$;

revoke all on function predictu_dispatch.record_intervention from public;
