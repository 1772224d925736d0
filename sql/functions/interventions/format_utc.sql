-- Returns a timestamp as RFC 3339 text in UTC, for messages.
create or replace function predictu_dispatch.format_utc(at_moment timestamptz) returns text language sql stable parallel safe as $$
    select to_char(at_moment at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
$$;

revoke all on function predictu_dispatch.format_utc from public;
