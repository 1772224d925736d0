-- A bet.
-- $1 operator_id; $2 bet_id
select operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id, created_at, updated_at,
       predictu_dispatch.currency_digits(currency) as minor_digits
  from predictu_dispatch.bet
 where operator_id = $1 and bet_id = $2
