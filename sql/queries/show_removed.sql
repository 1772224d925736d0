-- What is still known of a removed callback. Several rows only where operators share a request_id.
-- $1 request_id; $2 operator_id or null for any
select r.operator_id, r.method, r.state, r.removed_at
  from predictu_dispatch.request_tombstone r
 where r.request_id = $1 and r.state is not null
   -- One look into the primary key for each operator, as in why_callback.sql.
   and r.operator_id = any (array(
       select known.operator_id from predictu_dispatch.operator known where $2::text is null or known.operator_id = $2
   ))
 order by r.operator_id
