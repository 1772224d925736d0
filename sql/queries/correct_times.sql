-- Corrects times that are further ahead than can be written; returns the operators concerned.
-- $1 operator ids; seconds: $2 the longest delay of a retry, the longest Retry-After: $3 interactive,
-- $4 settlement; $5 seconds ahead of now from which due times are read
select distinct operator_id from predictu_dispatch.correct_times($1, $2, $3, $4, $5) as operator_id
