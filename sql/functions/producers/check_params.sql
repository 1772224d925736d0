-- Checks params as far as that is possible without the bet. Raises PD003.
create or replace function predictu_dispatch.check_params(method text, params jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    key text;
    missing text[];
begin
    if params is null or jsonb_typeof(params) <> 'object' then
        perform predictu_dispatch.refuse_params(method,
            format('%s is not a JSON object', coalesce(left(params::text, 80), 'NULL')),
            'Pass an object, for example jsonb_build_object(''player_id'', …).');
    end if;
    if octet_length(params::text) > 65536 then
        perform predictu_dispatch.refuse_params(method, format('params have %s bytes', octet_length(params::text)),
            'At most 65536 bytes are sent to an operator.');
    end if;
    if params @? '$.**{32}' then
        perform predictu_dispatch.refuse_params(method, 'params are nested too deeply',
            'At most 31 levels are sent to an operator.');
    end if;
    if method = 'PING' and params <> '{}' then
        perform predictu_dispatch.refuse_params(method, format('%s is not empty', left(params::text, 80)),
            'PING takes {} only.');
    end if;
    select array_agg(k) into missing from unnest(predictu_dispatch.required_params(method)) k where not params ? k;
    if missing is not null then
        perform predictu_dispatch.refuse_params(method, format('missing: %s', array_to_string(missing, ', ')),
            format('%s requires %s.', method, array_to_string(predictu_dispatch.required_params(method), ', ')));
    end if;
    foreach key in array array['player_id', 'bet_id', 'currency'] loop
        if params ? key then
            perform predictu_dispatch.check_text(method, key, params -> key);
        end if;
    end loop;
    if params ? 'currency' and predictu_dispatch.minor_digits(params ->> 'currency') is null then
        perform predictu_dispatch.refuse_params(method, format('unknown currency "%s"', left(params ->> 'currency', 80)),
            'Use an active ISO 4217 code in capitals, for example EUR.');
    end if;
    if params ? 'amount' then
        if jsonb_typeof(params -> 'amount') <> 'number' or (params ->> 'amount') !~ '^[0-9]{1,18}$' then
            perform predictu_dispatch.refuse_params(method, format('"amount" is %s', left((params -> 'amount')::text, 80)),
                '"amount" must be a whole number of subunits (cents), at most 18 digits, not negative.');
        end if;
        if method = 'BET_MAKE' and (params ->> 'amount')::bigint = 0 then
            perform predictu_dispatch.refuse_params(method, '"amount" is 0', 'A placement debits more than 0.');
        end if;
    end if;
    if method = 'BET_MAKE' then
        if jsonb_typeof(params -> 'bet') <> 'object' then
            perform predictu_dispatch.refuse_params(method, format('"bet" is %s', left((params -> 'bet')::text, 80)),
                '"bet" must be an object with market_id, outcome, odds, shares, price.');
        end if;
        select array_agg(k) into missing from unnest(array['market_id', 'outcome', 'odds', 'shares', 'price']) k
         where not (params -> 'bet') ? k;
        if missing is not null then
            perform predictu_dispatch.refuse_params(method, format('"bet" lacks %s', array_to_string(missing, ', ')),
                '"bet" must be an object with market_id, outcome, odds, shares, price.');
        end if;
    end if;
end $$;

revoke all on function predictu_dispatch.check_params from public;
