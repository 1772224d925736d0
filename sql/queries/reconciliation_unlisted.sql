-- How many differences the runs with open ones have found beyond those that they list.
-- $1 operator_id; $2 class; each null for any; $3 how many of each class a run lists
select f.operator_id, f.class, sum(f.items - $3)::bigint as unlisted
  from (select o.operator_id, o.class,
               (select sum(t.items) from predictu_dispatch.reconciliation_total t
                 where t.operator_id = o.operator_id and t.run_id = o.run_id and t.class = o.class) as items
          from predictu_dispatch.reconciliation_open o
         where ($1::text is null or o.operator_id = $1) and ($2::text is null or o.class = $2)
         group by o.operator_id, o.run_id, o.class) f
 where f.items > $3::integer
 group by f.operator_id, f.class
 order by f.operator_id, f.class
