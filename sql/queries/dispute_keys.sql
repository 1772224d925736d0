-- Keys that signed.
-- $1 operator_id, $2 their kids
select k.kid, k.public_jwk::text as public_jwk, k.first_seen_at, k.first_seen_id, k.retired_at, k.retired_id
  from predictu_dispatch.signing_key k
 where k.operator_id = $1 and k.kid = any($2::text[])
 order by k.kid collate "C"
