-- Returns a timestamp as RFC 3339 text in UTC, for messages; infinity as it is.
create or replace function predictu_dispatch.format_utc(at_time timestamptz) returns text
language sql stable parallel safe
return case when isfinite(at_time) then to_char(at_time at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
            else at_time::text end;

revoke all on function predictu_dispatch.format_utc from public;
