-- The movements of a period in `ledger`, by accounting day and method. `day` counts from 1. Those whose
-- amount cannot be read are counted apart, too.
-- $1 operator_id; $2 currency; $3 the first moments of the days, and the period's end
select width_bucket(l.confirmed_at, $3::timestamptz[]) as day, l.method, count(*) as movements,
       coalesce(sum(l.amount), 0) as amount, count(*) filter (where l.amount is null) as unreadable
  from predictu_dispatch.ledger l
 where l.operator_id = $1 and l.currency = $2
   and l.confirmed_at >= ($3::timestamptz[])[1] and l.confirmed_at < ($3::timestamptz[])[cardinality($3::timestamptz[])]
 group by day, l.method
