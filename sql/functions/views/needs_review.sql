-- Lists the callbacks that need manual review, with the reason as text.
create or replace view predictu_dispatch.needs_review as
select request_id, operator_id, method, bet_id, state, effect, (params ->> 'amount')::bigint as amount, review_since as since,
       case
           when state = 'delivered'
               then 'The operator once confirmed the debit, and now knows of none to reverse: the player may be owed the stake.'
           when state = 'rejected'
               then format('The operator refused it with %s; it is not retried by itself.', coalesce(operator_status, reason))
                    || case effect when 'unknown' then ' An earlier attempt may have been applied all the same.' else '' end
           when state = 'cancelled'
               then 'Its bet''s placement has an unknown fate and is being rolled back, so this must not be sent any more.'
           when reason = 'deadline' and effect = 'unknown'
               then 'Its deadline passed; whether the operator applied it is not known.'
           when reason = 'deadline'
               then 'Its deadline passed and the operator has certainly not applied it.'
           when effect = 'unknown'
               then format('It was tried %s times; whether the operator applied it is not known.', attempts)
           else format('It was tried %s times and the operator has certainly not applied it.', attempts)
       end as reason
from predictu_dispatch.callback
where review_since is not null;

revoke all on table predictu_dispatch.needs_review from public;
grant select on predictu_dispatch.needs_review to predictu_dispatcher, predictu_support;
