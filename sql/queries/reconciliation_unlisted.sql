-- How many differences the runs have found whose items are open, beyond those that they list.
-- $1 operator_id; $2 class; each null for any
select f.operator_id, f.class, sum(f.items - f.listed)::bigint as unlisted
  from (select o.operator_id, o.class,
               (select sum(t.items) from predictu_dispatch.reconciliation_total t
                 where t.operator_id = o.operator_id and t.run_id = o.run_id and t.class = o.class) as items,
               (select count(*) from predictu_dispatch.reconciliation_item i
                 where i.operator_id = o.operator_id and i.run_id = o.run_id and i.class = o.class) as listed
          from predictu_dispatch.reconciliation_open o
         where ($1::text is null or o.operator_id = $1) and ($2::text is null or o.class = $2)
         group by o.operator_id, o.run_id, o.class) f
 where f.items > f.listed
 group by f.operator_id, f.class
 order by f.operator_id, f.class
