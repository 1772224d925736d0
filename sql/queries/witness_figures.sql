-- The state of each witness for each log.
-- $1 witnesses
select operator_id, witness, behind_s, is_refused from predictu_dispatch.witness_figures($1)
