-- Makes the audit's partitions ahead.
-- $1 months ahead
select predictu_dispatch.prepare_partitions($1)
