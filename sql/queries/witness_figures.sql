-- How each witness is doing with each log.
-- $1 witnesses
select operator_id, witness, behind_s, is_refused from predictu_dispatch.witness_figures($1)
