-- Records why an open difference exists.
-- $1 operator_id; $2 item_id; $3 reason; $4 by
select d.operator_id, d.item_id, d.class, d.currency, c.minor_digits, d.disputed, d.day, d.key, d.request_id, d.method, d.bet_id
  from predictu_dispatch.explain_difference($1, $2, $3, $4) d
  left join predictu_dispatch.currency c on c.currency = d.currency
