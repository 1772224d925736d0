-- Lists the callbacks that need manual review, with the reason as text. Callbacks of one cause have
-- the same text, so that they can be grouped by it. New columns come last, so that an upgrade keeps
-- the view, and those of others that read it.
create or replace view predictu_dispatch.needs_review as
select c.request_id, c.operator_id, c.method, c.bet_id, c.state, c.effect, (shown.params ->> 'amount')::bigint as amount,
       c.review_since as since,
       case
           when c.state = 'delivered'
               then 'The operator confirmed the debit but had nothing to reverse: the player may be owed the stake.'
           when c.state = 'rejected' and c.reason = 'unknown_status'
               then format('The operator answered with the status "%s", which its file does not declare; it is not known '
                           'whether the operator applied it. Declare the status under [statuses] in operators/%s.toml.',
                           c.operator_status, c.operator_id)
           when c.state = 'rejected'
               then format('The operator rejected it with %s; it is not retried automatically.',
                           coalesce(c.operator_status, c.reason))
                    || case c.effect when 'unknown' then ' An earlier attempt may have been applied.' else '' end
           when c.state = 'cancelled'
               then 'The effect of its bet''s placement is unknown, so this must not be sent. ' || case
                   when rollback.state in ('waiting', 'ready', 'in_flight') then 'The bet''s rollback is not confirmed yet.'
                   when rollback.state = 'delivered' and rollback.reason = 'nothing_to_reverse'
                       then 'The bet''s rollback is done: the operator had no debit to reverse.'
                   when rollback.state = 'delivered' then 'The operator has confirmed the bet''s rollback.'
                   when rollback.state is not null
                       then 'The bet''s rollback ended without a confirmation: the player may still be debited.'
                   else 'The bet has no rollback.' end
           when c.reason = 'abandoned' and c.method = 'BET_ROLLBACK'
               then 'It was abandoned manually: a debit may stand at the operator.'
           when c.reason = 'abandoned'
               then 'It was abandoned manually; ' || case c.effect when 'unknown' then 'it is not known whether the operator applied it.'
                        else 'no attempt reached the operator, so it has certainly not applied it.' end
           when c.reason = 'deadline' and c.effect = 'unknown'
               then 'Its deadline passed; it is not known whether the operator applied it.'
           when c.reason = 'deadline'
               then 'Its deadline passed; no attempt reached the operator, so it has certainly not applied it.'
           when c.effect = 'unknown'
               then 'No attempt was confirmed; it is not known whether the operator applied it.'
           else 'No attempt reached the operator, so it has certainly not applied it.'
       end as reason,
       coalesce(shown.params ->> 'player_id', b.player_id) as player_id,
       coalesce(shown.params ->> 'currency', b.currency) as currency, c.reason as reason_code
  from predictu_dispatch.callback c
 cross join lateral predictu_dispatch.readable_params(c.params) as shown (params)
  left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
  left join predictu_dispatch.callback rollback
    on c.state = 'cancelled' and rollback.operator_id = b.operator_id and rollback.request_id = b.terminal_request_id
   and rollback.method = 'BET_ROLLBACK'
 where c.review_since is not null;

revoke all on table predictu_dispatch.needs_review from public;
grant select on predictu_dispatch.needs_review to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor;

comment on column predictu_dispatch.needs_review.request_id is 'The callback.';
comment on column predictu_dispatch.needs_review.operator_id is 'The operator.';
comment on column predictu_dispatch.needs_review.method is 'The callback''s method.';
comment on column predictu_dispatch.needs_review.bet_id is 'Its bet.';
comment on column predictu_dispatch.needs_review.player_id is 'The operator''s id of the player.';
comment on column predictu_dispatch.needs_review.currency is 'The currency of amount.';
comment on column predictu_dispatch.needs_review.amount is 'The callback''s amount in subunits; null for BET_LOSE.';
comment on column predictu_dispatch.needs_review.state is 'The callback''s state.';
comment on column predictu_dispatch.needs_review.effect is 'What is known of the operator''s side: none, unknown or applied.';
comment on column predictu_dispatch.needs_review.since is 'Since when it needs review.';
comment on column predictu_dispatch.needs_review.reason is 'Why it needs review, in words.';
comment on column predictu_dispatch.needs_review.reason_code is 'The callback''s reason, a short code.';
