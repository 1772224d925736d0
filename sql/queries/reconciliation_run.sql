-- A run with what its report needs. `accepted` and `accepted_contradictions` count the differences and
-- the contradictions that people have accepted; `is_first` is true if no earlier run covers one of its days.
-- `first_sent_at` is the first attempt of what is in flight because it was sent before the given ledger.
-- $1 operator_id; $2 run_id
select r.operator_id, r.run_id, r.first_day, r.last_day, r.time_zone, r.day_starts, r.day_edges, r.cut_at,
       r.sources::text as sources, r.given_from, r.given_until, r.rows_ours, r.sums::text as sums, r.started_at, r.finished_at,
       r.is_complete, r.opened, r.closed, r.done_by, r.database_role, a.accepted, a.accepted_contradictions,
       -- Its session's name is seen by every login; on a standby there is none.
       r.finished_at is null and r.started_at > clock_timestamp() - interval '1 day'
           and (pg_is_in_recovery() or exists (
               select from pg_stat_activity a
                where a.datname = current_database() and a.usename = r.database_role
                  and a.application_name = 'predictu-dispatch reconcile')) as is_under_way,
       not exists (select from predictu_dispatch.reconciliation_run e
                    where e.operator_id = r.operator_id and e.first_day <= r.last_day and e.last_day >= r.first_day
                      and e.finished_at < r.finished_at) as is_first,
       (select min(sent.started_at)
          from predictu_dispatch.reconciliation_item i
         cross join lateral (
             select min(t.started_at) as started_at from predictu_dispatch.attempt t
              where t.operator_id = i.operator_id and t.request_id = i.request_id
                -- As in classify(): without those that were not applied.
                and (t.verdict = 'delivered'
                     or t.verdict = 'retry' and t.evidence <> 'not_sent' and t.reason is distinct from 'nothing_to_reverse'
                     or t.verdict = 'rejected' and t.reason = 'unknown_status') offset 0) sent
         where i.operator_id = r.operator_id and i.run_id = r.run_id and i.class = 'in_flight' and i.lines = '[]'
           and i.confirmed_at - r.settle_s * interval '1 second' >= r.given_from
           and sent.started_at < r.given_from) as first_sent_at
  from predictu_dispatch.reconciliation_run r,
       lateral (select count(*) filter (where predictu_dispatch.difference_kind(i.class) = 'difference') as accepted,
                       count(*) filter (where predictu_dispatch.difference_kind(i.class) = 'contradiction')
                           as accepted_contradictions
                  from predictu_dispatch.reconciliation_item i
                 where i.operator_id = r.operator_id and i.run_id = r.run_id
                   and exists (select from predictu_dispatch.intervention v
                                where v.operator_id = i.operator_id and v.action = 'accept'
                                  and v.before ->> 'item_id' = i.item_id::text)) a
 where r.operator_id = $1 and r.run_id = $2
