-- The open differences of a callback, or of a bet.
-- $1 operator_id; $2 request_id or null; $3 bet_id or null
select o.item_id, o.class
  from predictu_dispatch.reconciliation_open o
 where o.operator_id = $1 and (o.request_id = $2 or o.bet_id = $3)
 order by o.day, o.item_id limit 3
