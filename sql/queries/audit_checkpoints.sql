-- The next stored checkpoints, each with the lines of its cosignatures.
-- $1 operator_id, $2 the size after which to begin, $3 how many
select c.size, c.checkpoint, c.signed_at,
       array(select k.line from predictu_dispatch.audit_cosignature k
              where k.operator_id = c.operator_id and k.size = c.size order by k.witness) as cosignatures
  from predictu_dispatch.audit_checkpoint c
 where c.operator_id = $1 and c.size > $2
 order by c.size
 limit $3
