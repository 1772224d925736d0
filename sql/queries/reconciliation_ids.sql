-- Items and runs whose ids are in a range, the newest first. A range of an index for each operator.
-- $1 the first id; $2 the last id; $3 operator_id, or null for any; $4 limit
select found.operator_id, found.id, found.what, max(found.at) as at
  from unnest(case when $3::text is null then array(select o.operator_id from predictu_dispatch.operator o)
                   else array[$3] end) as named (operator_id)
 cross join lateral (
     select r.operator_id, r.run_id as id, 'run' as what, r.started_at as at
       from predictu_dispatch.reconciliation_run r
      where r.operator_id = named.operator_id and r.run_id between $1 and $2
     union all
     select i.operator_id, i.item_id, i.class, r.started_at
       from predictu_dispatch.reconciliation_item i
       join predictu_dispatch.reconciliation_run r on r.operator_id = i.operator_id and r.run_id = i.run_id
      where i.operator_id = named.operator_id and i.item_id between $1 and $2 and r.finished_at is not null
 ) found
 group by found.operator_id, found.id, found.what
 order by max(found.at) desc, found.operator_id, found.id limit $4
