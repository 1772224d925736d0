-- Returns true if this daemon does the chore for the fleet in this interval.
-- $1 chore: partitions, reap, backlog, seal, cosign or reconciliation; $2 interval in seconds; $3 instance
select predictu_dispatch.claim_chore($1, $2, $3) as is_claimed
