-- What decides about a bet's money: its placement and its terminal callback, and what was bet. The
-- audit is read only for the time since when an outcome is unknown.
-- $1 operator_id; $2 bet_id
select b.operator_id, b.bet_id, b.state as bet_state, b.currency, predictu_dispatch.currency_digits(b.currency) as minor_digits,
       b.amount as stake, b.created_at as placed_at, shown.params #>> '{bet,market_id}' as market_id,
       shown.params #>> '{bet,outcome}' as outcome, shown.params #>> '{bet,odds}' as odds,
       placement.request_id as placement_request_id, placement.state as placement_state,
       placement.effect as placement_effect, placement.reason as placement_reason,
       placement.operator_status as placement_operator_status, placement.finished_at as placement_finished_at,
       case placement.effect when 'unknown' then (
           select min(a.finished_at) from predictu_dispatch.attempt a
            where a.operator_id = placement.operator_id and a.request_id = placement.request_id
              and a.evidence <> 'not_sent' and a.verdict in ('retry', 'rejected')) end as placement_unknown_since,
       terminal.request_id as terminal_request_id, terminal.method as terminal_method, terminal.state as terminal_state,
       terminal.effect as terminal_effect, terminal.reason as terminal_reason,
       terminal.operator_status as terminal_operator_status, terminal.finished_at as terminal_finished_at,
       terminal.created_at as terminal_created_at, terminal.review_since as terminal_review_since,
       (predictu_dispatch.readable_params(terminal.params) ->> 'amount')::bigint as terminal_amount,
       case terminal.effect when 'unknown' then (
           select min(a.finished_at) from predictu_dispatch.attempt a
            where a.operator_id = terminal.operator_id and a.request_id = terminal.request_id
              and a.evidence <> 'not_sent' and a.verdict in ('retry', 'rejected')) end as terminal_unknown_since,
       (select string_agg(c.method, ', ') from predictu_dispatch.callback c
         where c.operator_id = b.operator_id and c.bet_id = b.bet_id and c.review_since is not null
           and c.request_id is distinct from b.terminal_request_id) as others_in_review
  from predictu_dispatch.bet b
  left join predictu_dispatch.callback placement
    on placement.operator_id = b.operator_id and placement.request_id = b.placement_request_id
  left join predictu_dispatch.callback terminal
    on terminal.operator_id = b.operator_id and terminal.request_id = b.terminal_request_id
  left join lateral predictu_dispatch.readable_params(placement.params) as shown (params) on true
 where b.operator_id = $1 and b.bet_id = $2
