-- An item as the newest run found it, with what it needs to be read alone.
-- $1 operator_id; $2 item_id
select i.operator_id, i.item_id, i.run_id, i.class, i.key, i.request_id, i.method, i.bet_id, i.player_id, i.transaction_id,
       i.currency, i.day, i.confirmed_at, i.disputed, i.is_open, i.amounts::text as amounts, i.lines::text as lines,
       r.sources::text as sources, r.time_zone, r.lines_unreadable, r.finished_at as found_at, r.done_by as found_by,
       (select min(f.finished_at) from predictu_dispatch.reconciliation_item e
          join predictu_dispatch.reconciliation_run f on f.operator_id = e.operator_id and f.run_id = e.run_id
         where e.operator_id = i.operator_id and e.item_id = i.item_id) as first_found_at,
       exists (select from predictu_dispatch.bet b
                where b.operator_id = i.operator_id and b.placement_request_id = i.request_id) as is_of_known_bet,
       (select n.run_id from predictu_dispatch.reconciliation_run n
         where n.operator_id = i.operator_id and n.finished_at > r.finished_at
           and (i.day between n.first_day and n.last_day
                or exists (select from predictu_dispatch.reconciliation_item k
                            where k.operator_id = n.operator_id and k.run_id = n.run_id and k.key = i.key))
         order by n.finished_at limit 1) as closed_by_run_id,
       (select jsonb_object_agg(c.currency, c.minor_digits)::text from predictu_dispatch.currency c
         where c.currency = i.currency
            or c.currency in (select a ->> 'currency' from jsonb_array_elements(i.amounts || i.lines) a)) as digits
  from predictu_dispatch.reconciliation_item i
  join predictu_dispatch.reconciliation_run r on r.operator_id = i.operator_id and r.run_id = i.run_id
 where i.operator_id = $1 and i.item_id = $2 and r.finished_at is not null
 order by i.is_open desc, r.finished_at desc limit 1
