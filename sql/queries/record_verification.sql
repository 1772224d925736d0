-- $1 operator_id, $2 size, $3 faults, $4 the first faults as JSON
select predictu_dispatch.record_verification($1, $2, $3, $4::text::jsonb)
