-- The callbacks that need manual review, the oldest first.
-- $1 limit, or null for all
select request_id, operator_id, method, bet_id, player_id, state, effect, currency, amount,
       predictu_dispatch.currency_digits(currency) as minor_digits, since, reason, reason_code
  from predictu_dispatch.needs_review order by since, request_id limit $1
