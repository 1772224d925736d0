-- The review list by cause and currency: how many callbacks, their sum, and the oldest of them.
select operator_id, method, state, effect, reason_code, reason, currency, predictu_dispatch.currency_digits(currency) as minor_digits,
       count(*) as callbacks, sum(amount) as amount, min(since) as since,
       (array_agg(request_id order by since, request_id))[1] as oldest_request_id
  from predictu_dispatch.needs_review
 group by operator_id, method, state, effect, reason_code, reason, currency
 order by count(*) desc, operator_id, method, reason, currency
