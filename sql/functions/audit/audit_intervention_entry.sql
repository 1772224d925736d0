-- Returns the entry of an intervention in its operator's log; see audit_entry().
create or replace function predictu_dispatch.audit_intervention_entry(i predictu_dispatch.intervention) returns bytea
language sql stable parallel safe
return convert_to(
    ('{"action":' || coalesce(to_json(i.action)::text, 'null')
        || ',"after_sha256":' || coalesce('"' || encode(sha256(convert_to(i.after::text, 'UTF8')), 'hex') || '"', 'null')
        || ',"before_sha256":' || coalesce('"' || encode(sha256(convert_to(i.before::text, 'UTF8')), 'hex') || '"', 'null')
        || ',"bet_id":' || coalesce(to_json(i.bet_id)::text, 'null')
        || ',"client_addr":' || coalesce('"' || i.client_addr::text || '"', 'null')
        || ',"database_role":' || coalesce(to_json(i.database_role)::text, 'null'))
    || (',"done_at":' || coalesce('"' || case when i.done_at >= '0001-01-01 00:00:00+00' and i.done_at < 'infinity'
                           then to_char(i.done_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                           when isfinite(i.done_at) then to_char(i.done_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"')
                           else i.done_at::text end || '"', 'null')
        || ',"done_by":' || coalesce(to_json(i.done_by)::text, 'null')
        || ',"intervention_id":' || coalesce('"' || i.intervention_id::text || '"', 'null')
        || ',"kind":"intervention","operator_id":' || coalesce(to_json(i.operator_id)::text, 'null')
        || ',"reason_sha256":' || coalesce('"' || encode(sha256(convert_to(i.reason, 'UTF8')), 'hex') || '"', 'null')
        || ',"request_id":' || coalesce('"' || i.request_id::text || '"', 'null'))
    || (',"version":1,"written_in":' || coalesce(i.written_in::text, 'null')
        || '}'), 'UTF8');

revoke all on function predictu_dispatch.audit_intervention_entry from public;
