-- How many callbacks of an operator need review, by currency: those that may be retried, with the
-- sum of their amounts and how many of these cannot be read, and the others. No row for an unknown
-- operator.
-- $1 operator_id; $2 method, or null for any
select o.operator_id, coalesce(shown.params ->> 'currency', b.currency) as currency,
       predictu_dispatch.currency_digits(coalesce(shown.params ->> 'currency', b.currency)) as minor_digits,
       count(c.request_id) filter (where c.state in ('rejected', 'exhausted')) as retriable,
       coalesce(sum((shown.params ->> 'amount')::numeric) filter (where c.state in ('rejected', 'exhausted')), 0) as amount,
       count(c.request_id) filter (where c.state in ('rejected', 'exhausted') and shown.params ? 'unreadable'
                                     -- Else a producer named one of its own params so.
                                     and not shown.params ? 'player_id') as unreadable,
       count(c.request_id) filter (where c.state not in ('rejected', 'exhausted')) as others,
       clock_timestamp() as counted_at
  from predictu_dispatch.operator o
  left join predictu_dispatch.callback c
    on c.operator_id = o.operator_id and c.review_since is not null and ($2::text is null or c.method = $2)
  left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
  left join lateral predictu_dispatch.readable_params(c.params) as shown (params) on true
 where o.operator_id = $1
 group by o.operator_id, coalesce(shown.params ->> 'currency', b.currency)
 order by currency
