-- Stores the keys that this daemon is about to sign with.
-- $1 operator ids; $2 their key ids; $3 algorithms; $4 public JWKs
select predictu_dispatch.register_signing_keys($1, $2, $3, $4)
