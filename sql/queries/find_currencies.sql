-- The currencies in which operators have bets, with their minor digits. It reads one index entry for
-- each operator and currency.
-- $1 operator_ids
with recursive used (operator_id, currency) as (
    select named.operator_id,
           (select b.currency from predictu_dispatch.bet b
             where b.operator_id = named.operator_id order by b.currency limit 1)
      from unnest($1::text[]) as named (operator_id)
    union all
    select used.operator_id,
           (select b.currency from predictu_dispatch.bet b
             where b.operator_id = used.operator_id and b.currency > used.currency order by b.currency limit 1)
      from used where used.currency is not null
)
select used.operator_id, used.currency, predictu_dispatch.currency_digits(used.currency) as minor_digits
  from used where used.currency is not null
 order by used.operator_id, used.currency
