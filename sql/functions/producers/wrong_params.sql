-- Returns what is wrong with params and what is allowed, as far as that is known without the bet; null
-- if nothing is wrong. It is one expression and becomes a part of its caller's, because Postgres
-- prepares each expression of a function again in every transaction.
create or replace function predictu_dispatch.wrong_params(method text, params jsonb, is_currency_known boolean)
returns text[] language sql
return case
    when params is null or jsonb_typeof(params) <> 'object' then array[
        format('%s is not a JSON object', coalesce(left(params::text, 80), 'NULL')),
        'Pass an object, for example jsonb_build_object(''player_id'', …).']
    when octet_length(params::text) > 65536 then array[
        format('params have %s bytes', octet_length(params::text)),
        'At most 65536 bytes are sent to an operator.']
    when params @? '$.**{32}' then array[
        'params are nested too deeply', 'At most 31 levels are sent to an operator.']
    when method = 'PING' and params <> '{}' then array[
        format('%s is not empty', left(params::text, 80)), 'PING takes {} only.']
    when not params ?& predictu_dispatch.required_params(method) then predictu_dispatch.missing_keys(
        'missing: %s', method || ' requires %s.', predictu_dispatch.required_params(method), params)
    when jsonb_typeof(params -> 'player_id') <> 'string' or length(params ->> 'player_id') not between 1 and 200
        then predictu_dispatch.not_a_text('player_id', params -> 'player_id')
    when jsonb_typeof(params -> 'bet_id') <> 'string' or length(params ->> 'bet_id') not between 1 and 200
        then predictu_dispatch.not_a_text('bet_id', params -> 'bet_id')
    when jsonb_typeof(params -> 'currency') <> 'string' or length(params ->> 'currency') not between 1 and 200
        then predictu_dispatch.not_a_text('currency', params -> 'currency')
    when params ? 'currency' and not is_currency_known then array[
        format('unknown currency "%s"', left(params ->> 'currency', 80)),
        'Use an active ISO 4217 code in capitals, for example EUR, or one that the schema''s owner has added.']
    when params ? 'amount' and method = 'BET_LOSE' then array[
        '"amount" is given', 'BET_LOSE moves no money: leave "amount" out, or send BET_WIN, BET_SELL or BET_REFUND.']
    when jsonb_typeof(params -> 'amount') <> 'number' or params ->> 'amount' !~ '^[0-9]{1,18}$' then array[
        format('"amount" is %s', left((params -> 'amount')::text, 80)),
        '"amount" must be a whole number of subunits (1250 for 12.50 EUR), at most 18 digits, not negative.']
    when method = 'BET_MAKE' and params -> 'amount' = '0' then array[
        '"amount" is 0', 'A placement debits more than 0.']
    when method = 'BET_MAKE' and jsonb_typeof(params -> 'bet') <> 'object' then array[
        format('"bet" is %s', left((params -> 'bet')::text, 80)),
        '"bet" must be an object with market_id, outcome, odds, shares, price.']
    when method = 'BET_MAKE' and not params -> 'bet' ?& '{market_id,outcome,odds,shares,price}' then
        predictu_dispatch.missing_keys('"bet" lacks %s', '"bet" must be an object with %s.',
            '{market_id,outcome,odds,shares,price}', params -> 'bet')
    when method = 'BET_MAKE' and jsonb_typeof(params #> '{bet,odds}') not in ('number', 'null') then array[
        format('"odds" is %s', left((params #> '{bet,odds}')::text, 80)),
        '"odds" must be a number, for example 1.85.']
    -- Only keys that begin and end like one of ours are compared.
    when lower((params - '{player_id,currency,amount,bet_id,bet,rollback_of}'::text[])::text collate "C")
         ~ '"[-_. ]*(p[^"]*d|c[^"]*y|a[^"]*t|b[^"]*[dt]|r[^"]*f)[-_. ]*"'
        then predictu_dispatch.misspelt_key('{player_id,currency,amount,bet_id,bet,rollback_of}', params)
    when method = 'BET_MAKE'
         and lower(((params -> 'bet') - '{market_id,outcome,odds,shares,price}'::text[])::text collate "C")
             ~ '"[-_. ]*(m[^"]*d|[op][^"]*e|[os][^"]*s)[-_. ]*"'
        then predictu_dispatch.misspelt_key('{market_id,outcome,odds,shares,price}', params -> 'bet')
end;

revoke all on function predictu_dispatch.wrong_params from public;
