-- The open differences of each operator and currency.
-- $1 operator_id; $2 class; each null for any
select o.operator_id, o.currency, c.minor_digits, count(*) as differences, sum(o.disputed) as disputed
  from predictu_dispatch.reconciliation_open o
  left join predictu_dispatch.currency c on c.currency = o.currency
 where ($1::text is null or o.operator_id = $1) and ($2::text is null or o.class = $2)
 group by o.operator_id, o.currency, c.minor_digits
 order by o.operator_id, o.currency
