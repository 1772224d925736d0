-- Returns a timestamp as RFC 3339 text in UTC, for messages.
create or replace function predictu_dispatch.format_utc(at_time timestamptz) returns text
language sql stable parallel safe
return to_char(at_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

revoke all on function predictu_dispatch.format_utc from public;
