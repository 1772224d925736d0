-- Records which keys this daemon signs with.
-- $1 instance; $2 session; $3 operator ids; $4 their key ids
select predictu_dispatch.report_signing_keys($1, $2, $3, $4) as is_recorded
