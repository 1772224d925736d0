-- How many callbacks a person must look at, by operator, and how many of those have an unknown effect.
select operator_id, count(*) as callbacks, count(*) filter (where effect = 'unknown') as unknown_effect
  from predictu_dispatch.callback where review_since is not null group by operator_id
