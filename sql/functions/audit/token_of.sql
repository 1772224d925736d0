-- Returns the whole token that an attempt sent, from 60 s after its exp by this server's clock. Until
-- then it is a credential, and the function raises PD009 with the time from which it may be read. It
-- is the token of the attempt's deciding row, or of the row with this report_id, such as that of a
-- late answer. Raises PD003 if there is no such row, if it has no token, or if its exp cannot be
-- read: then it is unknown when the token expires.
create or replace function predictu_dispatch.token_of(
    operator_id text, request_id uuid, attempt integer, report_id uuid default null
) returns text language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    stored record;
    unsigned text;
    claims text;
    readable_from timestamptz;
begin
    select a.request_headers, a.token_signature into stored
      from predictu_dispatch.attempt_record a
     where a.operator_id = token_of.operator_id and a.request_id = token_of.request_id
       and a.attempt = token_of.attempt
       and case when token_of.report_id is null then a.verdict <> 'late' else a.report_id = token_of.report_id end
     -- A repeated report may be in the audit as late too; both rows have one token.
     limit 1;
    if not found then
        perform predictu_dispatch.refuse_params('token_of', 'there is no such attempt',
            'See `predictu-dispatch show` for the attempts of a callback.');
    end if;
    -- The audited header: Bearer, the token's first two parts, and a note instead of the signature.
    unsigned := substring(stored.request_headers ->> 'Authorization'
                          from '^Bearer ([^.]+[.][^.]+)[.][[]signature withheld[]]$');
    if unsigned is null or stored.token_signature is null then
        perform predictu_dispatch.refuse_params('token_of', 'this row of the attempt has no token',
            'It was made by an earlier release, or the attempt was interrupted. Its late row, if there is one, may have '
            'a token: give its report_id.');
    end if;
    begin
        claims := translate(split_part(unsigned, '.', 2), '-_', '+/');
        claims := convert_from(decode(claims || repeat('=', -length(claims) & 3), 'base64'), 'UTF8');
        if jsonb_typeof(claims::jsonb -> 'exp') = 'number' then
            readable_from := to_timestamp((claims::jsonb ->> 'exp')::double precision + 60);
        end if;
    exception when others then
        perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
    end;
    if readable_from is null then
        perform predictu_dispatch.refuse_params('token_of', 'the exp of this token cannot be read',
            'It is not known when the token has expired, so it is not shown.');
    end if;
    if clock_timestamp() < readable_from then
        raise exception using errcode = 'PD009',
            message = format('the token of attempt %s may be valid; it may be read from %s', token_of.attempt,
                             predictu_dispatch.format_utc(readable_from)),
            hint = 'A token is a credential until 60 s after its exp.';
    end if;
    return unsigned || '.' || rtrim(translate(encode(stored.token_signature, 'base64'), '+/' || chr(10), '-_'), '=');
end $$;

revoke all on function predictu_dispatch.token_of from public;
grant execute on function predictu_dispatch.token_of to predictu_auditor;
