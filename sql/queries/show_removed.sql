-- What is left of a callback that retention removed. Several rows only if operators share a
-- request_id.
-- $1 request_id; $2 operator_id, or null for any
select r.operator_id, r.method, r.state, r.removed_at
  from predictu_dispatch.request_tombstone r
 where r.request_id = $1 and r.state is not null
   -- One primary key lookup for each operator, as in why_callback.sql.
   and r.operator_id = any (array(
       select known.operator_id from predictu_dispatch.operator known where $2::text is null or known.operator_id = $2
   ))
 order by r.operator_id
