-- The operators to search: those that a daemon has registered, or one; and the indexes that `find`
-- needs and that are missing or not valid.
-- $1 operator_id, or null for all; $2 names of indexes
select named.operator_id, known.operator_id is not null as is_known, now() as at,
       array(select name from unnest($2::text[]) name
              where not exists (select from pg_catalog.pg_index i
                                 where i.indexrelid = pg_catalog.to_regclass('predictu_dispatch.' || name) and i.indisvalid)
             ) as missing_indexes
  from unnest(case when $1::text is null then array(select o.operator_id from predictu_dispatch.operator o)
                   else array[$1] end) as named (operator_id)
  left join predictu_dispatch.operator known on known.operator_id = named.operator_id
 order by named.operator_id
