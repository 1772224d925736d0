-- The newest checkpoint of a log, and the newest one that a witness has cosigned.
-- $1 operator_id
select h.size, h.checkpoint, array(select k.line from predictu_dispatch.audit_cosignature k
                                    where k.operator_id = h.operator_id and k.size = h.size order by k.witness) as cosignatures
  from predictu_dispatch.audit_head h where h.operator_id = $1
union all
(select c.size, c.checkpoint, array(select k.line from predictu_dispatch.audit_cosignature k
                                     where k.operator_id = c.operator_id and k.size = c.size order by k.witness)
   from predictu_dispatch.audit_checkpoint c
  where c.operator_id = $1
    and c.size = (select max(k.size) from predictu_dispatch.audit_cosignature k where k.operator_id = $1))
