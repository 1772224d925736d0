-- How many callbacks a person must look at, by operator.
select operator_id, count(*) as callbacks from predictu_dispatch.callback where review_since is not null group by operator_id
