-- How many callbacks a person must look at, by operator, how many of those have an unknown effect, and since when the oldest waits.
select operator_id, count(*) as callbacks, count(*) filter (where effect = 'unknown') as unknown_effect,
       extract(epoch from now() - min(review_since))::double precision as review_for_s
  from predictu_dispatch.callback where review_since is not null group by operator_id
