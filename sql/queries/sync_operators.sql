-- Writes this daemon's operators, so that producers can use them; returns the locked ones, to be
-- tried again.
-- $1 operator ids; $2 enabled; $3 interactive deadlines in seconds; $4 settlement deadlines in
-- seconds; $5 fingerprints
select predictu_dispatch.sync_operators($1, $2, $3, $4, $5) as operator_id
