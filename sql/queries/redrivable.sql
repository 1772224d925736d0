-- A page of what of an operator may be sent again by a person, the longest on the review list first. What fails again meanwhile comes
-- back to the list later than the count, and is left out.
-- $1 operator_id; $2 method or null for any; $3 counted at; $4 and $5 review_since and request_id of the page before, or null; $6 at most
select request_id, review_since
  from predictu_dispatch.callback
 where operator_id = $1 and review_since is not null and review_since <= $3 and state in ('rejected', 'exhausted')
   and ($2::text is null or method = $2)
   and ($4::timestamptz is null or (review_since, request_id) > ($4, $5::uuid))
 order by review_since, request_id limit $6
