-- A page of an operator's callbacks that a person may retry, the longest on the review list first.
-- One that fails again meanwhile returns to the list after $3 and is left out. One that lies in the
-- future was there before: the clock was set back.
-- $1 operator_id; $2 method, or null for any; $3 counted_at; $4 and $5 review_since and request_id
--    of the last row before, or null; $6 limit
select request_id, review_since
  from predictu_dispatch.callback
 where operator_id = $1 and state in ('rejected', 'exhausted')
   and review_since is not null and (review_since <= $3 or review_since > clock_timestamp())
   and ($2::text is null or method = $2)
   and ($4::timestamptz is null or (review_since, request_id) > ($4, $5::uuid))
 order by review_since, request_id limit $6
