-- Returns the entry of a removal in its operator's log; see audit_entry().
create or replace function predictu_dispatch.audit_removal_entry(r predictu_dispatch.audit_removal) returns bytea
language sql stable parallel safe
return convert_to(
    ('{"attempts":' || coalesce(r.attempts::text, 'null')
        || ',"cutoff":' || coalesce('"' || case when r.cutoff >= '0001-01-01 00:00:00+00' and r.cutoff < 'infinity'
                           then to_char(r.cutoff at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                           when isfinite(r.cutoff) then to_char(r.cutoff at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"')
                           else r.cutoff::text end || '"', 'null')
        || ',"kind":"removal","leaf_indices_sha256":' || coalesce('"' || encode(r.leaf_indices_sha256, 'hex') || '"', 'null')
        || ',"operator_id":' || coalesce(to_json(r.operator_id)::text, 'null')
        || ',"part":' || coalesce(to_json(r.part)::text, 'null')
        || ',"removal_id":' || coalesce('"' || r.removal_id::text || '"', 'null'))
    || (',"removed_at":' || coalesce('"' || case when r.removed_at >= '0001-01-01 00:00:00+00' and r.removed_at < 'infinity'
                           then to_char(r.removed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                           when isfinite(r.removed_at) then to_char(r.removed_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"')
                           else r.removed_at::text end || '"', 'null')
        || ',"version":1,"written_in":' || coalesce(r.written_in::text, 'null')
        || '}'), 'UTF8');

revoke all on function predictu_dispatch.audit_removal_entry from public;
