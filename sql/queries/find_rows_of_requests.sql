-- Callbacks by their keys, in the order of the keys.
-- $1 operator_ids and $2 request_ids; $3 state, or null for any; $4 method, or null for any; $5 limit
with page as materialized (
    select named.number, c.operator_id, c.request_id
      from unnest($1::text[], $2::uuid[]) with ordinality as named (operator_id, request_id, number)
     cross join lateral (
         select c.operator_id, c.request_id from predictu_dispatch.callback c
          where c.operator_id = named.operator_id and c.request_id = named.request_id
            and ($3::text is null or c.state = $3) and ($4::text is null or c.method = $4)
          limit 1
     ) c
     order by named.number limit $5
)
select page.number, c.request_id, c.operator_id, c.method, c.state, c.reason, c.effect, c.operator_status, c.operator_transaction_id,
       c.bet_id, c.created_at, c.finished_at, c.review_since, shown.player_id, shown.currency, shown.amount,
       predictu_dispatch.currency_digits(shown.currency) as minor_digits
  from page
  join predictu_dispatch.callback c on c.operator_id = page.operator_id and c.request_id = page.request_id
  left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
 cross join lateral (
     -- Params are read only for what the bet does not have: they may be large.
     select case when b.bet_id is null or c.method in ('BET_WIN', 'BET_SELL')
                 then predictu_dispatch.readable_params(c.params) end
 ) own (params)
 cross join lateral (
     select coalesce(b.player_id, own.params ->> 'player_id'), coalesce(b.currency, own.params ->> 'currency'),
            case when c.method in ('BET_MAKE', 'BET_REFUND', 'BET_ROLLBACK') then b.amount
                 else (own.params ->> 'amount')::bigint end
 ) shown (player_id, currency, amount)
 order by page.number, c.created_at desc, c.request_id
