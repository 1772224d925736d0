-- Returns the entry of an attempt in its operator's log (evidence/FORMAT.md): canonical JSON in UTF-8.
-- One expression of built-in functions, so that `audit verify` can evaluate this text by itself.
create or replace function predictu_dispatch.audit_entry(a predictu_dispatch.attempt) returns bytea
language sql stable parallel safe
return convert_to(
    ('{"attempt":' || coalesce(a.attempt::text, 'null')
        || ',"connect_us":' || case when a.connect_ms between -9e12 and 9e12 then round(a.connect_ms * 1000)::bigint::text
            when a.connect_ms in ('NaN', 'Infinity', '-Infinity') then '"' || a.connect_ms::text || '"'
            else coalesce('"' || encode(float8send(a.connect_ms), 'hex') || '"', 'null') end
        || ',"error_sha256":' || coalesce('"' || encode(sha256(convert_to(a.error, 'UTF8')), 'hex') || '"', 'null')
        || ',"evidence":' || coalesce(to_json(a.evidence)::text, 'null')
        || ',"finished_at":' || coalesce('"' || case when a.finished_at >= '0001-01-01 00:00:00+00' and a.finished_at < 'infinity'
                           then to_char(a.finished_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                           when isfinite(a.finished_at) then to_char(a.finished_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"')
                           else a.finished_at::text end || '"', 'null')
        || ',"first_byte_us":' || case when a.first_byte_ms between -9e12 and 9e12 then round(a.first_byte_ms * 1000)::bigint::text
            when a.first_byte_ms in ('NaN', 'Infinity', '-Infinity') then '"' || a.first_byte_ms::text || '"'
            else coalesce('"' || encode(float8send(a.first_byte_ms), 'hex') || '"', 'null') end)
    || (',"instance":' || coalesce(to_json(a.instance)::text, 'null')
        || ',"key_id":' || coalesce(to_json(a.key_id)::text, 'null')
        || ',"kind":"attempt","method":' || coalesce(to_json(a.method)::text, 'null')
        || ',"operator_id":' || coalesce(to_json(a.operator_id)::text, 'null')
        || ',"peer":' || coalesce(to_json(a.peer)::text, 'null')
        || ',"peer_certificate_sha256":' || coalesce('"' || encode(a.peer_certificate_sha256, 'hex') || '"', 'null'))
    || (',"reason":' || coalesce(to_json(a.reason)::text, 'null')
        || ',"report_id":' || coalesce('"' || a.report_id::text || '"', 'null')
        || ',"request_body_sha256":' || coalesce('"' || encode(sha256(convert_to(a.request_body, 'UTF8')), 'hex') || '"', 'null')
        || ',"request_headers_sha256":' || coalesce('"' || encode(sha256(convert_to(a.request_headers::text, 'UTF8')), 'hex') || '"', 'null')
        || ',"request_id":' || coalesce('"' || a.request_id::text || '"', 'null')
        || ',"response_body_repeats":' || coalesce(a.response_body_repeats::text, 'null'))
    || (',"response_body_sha256":' || coalesce('"' || encode(coalesce(a.response_body_sha256, sha256(a.response_body)), 'hex') || '"', 'null')
        || ',"response_body_stored_sha256":' || coalesce('"' || encode(sha256(a.response_body), 'hex') || '"', 'null')
        || ',"response_headers_sha256":' || coalesce('"' || encode(sha256(convert_to(a.response_headers::text, 'UTF8')), 'hex') || '"', 'null')
        || ',"response_status":' || coalesce(a.response_status::text, 'null')
        || ',"response_truncated":' || coalesce(a.response_truncated::text, 'null')
        || ',"started_at":' || coalesce('"' || case when a.started_at >= '0001-01-01 00:00:00+00' and a.started_at < 'infinity'
                           then to_char(a.started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                           when isfinite(a.started_at) then to_char(a.started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"')
                           else a.started_at::text end || '"', 'null'))
    || (',"token_sha256":' || coalesce('"' || encode(a.token_sha256, 'hex') || '"', 'null')
        || ',"total_us":' || case when a.total_ms between -9e12 and 9e12 then round(a.total_ms * 1000)::bigint::text
            when a.total_ms in ('NaN', 'Infinity', '-Infinity') then '"' || a.total_ms::text || '"'
            else coalesce('"' || encode(float8send(a.total_ms), 'hex') || '"', 'null') end
        || ',"url":' || coalesce(to_json(a.url)::text, 'null')
        || ',"verdict":' || coalesce(to_json(a.verdict)::text, 'null')
        || ',"version":1,"written_in":' || coalesce(a.written_in::text, 'null')
        || '}'), 'UTF8');

revoke all on function predictu_dispatch.audit_entry from public;
