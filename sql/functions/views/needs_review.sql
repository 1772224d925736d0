-- Lists the callbacks that need manual review, with the reason as text.
create or replace view predictu_dispatch.needs_review as
select request_id, operator_id, method, bet_id, state, effect, (predictu_dispatch.readable_params(params) ->> 'amount')::bigint as amount,
       review_since as since,
       case
           when state = 'delivered'
               then 'The operator confirmed the debit but had nothing to reverse: the player may be owed the stake.'
           when state = 'rejected' and reason = 'unknown_status'
               then format('The operator answered with the status "%s", which its file does not declare; it is not known '
                           'whether the operator applied it. Declare the status under [statuses] in operators/%s.toml.',
                           operator_status, operator_id)
           when state = 'rejected'
               then format('The operator rejected it with %s; it is not retried automatically.',
                           coalesce(operator_status, reason))
                    || case effect when 'unknown' then ' An earlier attempt may have been applied.' else '' end
           when state = 'cancelled'
               then 'Its bet''s placement has an unknown effect and is rolled back, so this must not be sent.'
           when reason = 'abandoned' and method = 'BET_ROLLBACK'
               then format('It was abandoned manually after %s attempts: a debit may stand at the operator.', attempts)
           when reason = 'abandoned'
               then format('It was abandoned manually after %s attempts; ', attempts)
                    || case effect when 'unknown' then 'it is not known whether the operator applied it.'
                                   else 'the operator has certainly not applied it.' end
           when reason = 'deadline' and effect = 'unknown'
               then 'Its deadline passed; it is not known whether the operator applied it.'
           when reason = 'deadline'
               then 'Its deadline passed; the operator has certainly not applied it.'
           when effect = 'unknown'
               then format('It was attempted %s times; it is not known whether the operator applied it.', attempts)
           else format('It was attempted %s times; the operator has certainly not applied it.', attempts)
       end as reason
from predictu_dispatch.callback
where review_since is not null;

revoke all on table predictu_dispatch.needs_review from public;
grant select on predictu_dispatch.needs_review to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor;
