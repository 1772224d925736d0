-- The first cosigned checkpoint that has an entry.
-- $1 operator_id, $2 the entry's index
select c.size, c.checkpoint, array(select k.line from predictu_dispatch.audit_cosignature k
                                    where k.operator_id = c.operator_id and k.size = c.size order by k.witness) as cosignatures
  from predictu_dispatch.audit_checkpoint c
 where c.operator_id = $1
   and c.size = (select min(k.size) from predictu_dispatch.audit_cosignature k where k.operator_id = $1 and k.size > $2)
