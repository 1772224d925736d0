-- Creates the audit's partitions ahead, if this daemon does it for the fleet in this interval.
-- $1 months ahead; $2 interval in seconds; $3 instance
select predictu_dispatch.prepare_partitions($1)
  from predictu_dispatch.claim_chore('partitions', $2, $3) as is_claimed where is_claimed
