-- Returns one of a key's two entries in its operator's log; `event` is first_seen or retired. See
-- audit_entry().
create or replace function predictu_dispatch.audit_key_entry(k predictu_dispatch.signing_key, event text) returns bytea
language sql stable parallel safe
return convert_to(
    ('{"algorithm":' || coalesce(to_json(k.algorithm)::text, 'null')
        || ',"at":' || coalesce('"' || case when case when event = 'retired' then k.retired_at else k.first_seen_at end >= '0001-01-01 00:00:00+00' and case when event = 'retired' then k.retired_at else k.first_seen_at end < 'infinity'
                           then to_char(case when event = 'retired' then k.retired_at else k.first_seen_at end at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
                           when isfinite(case when event = 'retired' then k.retired_at else k.first_seen_at end) then to_char(case when event = 'retired' then k.retired_at else k.first_seen_at end at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"')
                           else case when event = 'retired' then k.retired_at else k.first_seen_at end::text end || '"', 'null')
        || ',"entry_id":' || coalesce('"' || case when event = 'retired' then k.retired_id else k.first_seen_id end::text || '"', 'null')
        || ',"event":' || coalesce(to_json(event)::text, 'null')
        || ',"kid":' || coalesce(to_json(k.kid)::text, 'null')
        || ',"kind":"key","operator_id":' || coalesce(to_json(k.operator_id)::text, 'null'))
    || (',"public_jwk_sha256":' || coalesce('"' || encode(sha256(convert_to(k.public_jwk::text, 'UTF8')), 'hex') || '"', 'null')
        || ',"version":1,"written_in":' || coalesce(case when event = 'retired' then k.retired_in else k.written_in end::text, 'null')
        || '}'), 'UTF8');

revoke all on function predictu_dispatch.audit_key_entry from public;
