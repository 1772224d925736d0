-- Returns the first entry of a log; see audit_entry().
create or replace function predictu_dispatch.audit_start_entry(l predictu_dispatch.audit_log) returns bytea
language sql stable parallel safe
return convert_to(
    ('{"attempts_before":' || coalesce(l.attempts_before::text, 'null')
        || ',"interventions_before":' || coalesce(l.interventions_before::text, 'null')
        || ',"kind":"start","operator_id":' || coalesce(to_json(l.operator_id)::text, 'null')
        || ',"origin":' || coalesce(to_json(l.origin)::text, 'null')
        || ',"start_id":' || coalesce('"' || l.start_id::text || '"', 'null')
        || ',"started_at":' || coalesce('"' || case when l.started_at >= '0001-01-01 00:00:00+00' and l.started_at < 'infinity'
                           then to_char(l.started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                           when isfinite(l.started_at) then to_char(l.started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"')
                           else l.started_at::text end || '"', 'null'))
    || (',"system_identifier":' || coalesce('"' || l.system_identifier::text || '"', 'null')
        || ',"version":1,"written_in":' || coalesce(l.written_in::text, 'null')
        || '}'), 'UTF8');

revoke all on function predictu_dispatch.audit_start_entry from public;
