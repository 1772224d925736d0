-- Records that this daemon is alive; returns its shares.
-- $1 instance; $2 session; $3 host; $4 pid; $5 version; $6 operator ids; limits: $7 interactive, $8
--    settlement, $9 requests a second (0: none); in use until the answer is read: $10 interactive,
--    $11 settlement, $12 requests a second (null: not limited); $13 the last migration that its
--    release has; $14 the Unix time that this daemon expects, 0 if it has not seen the clock steady
--    for long enough; $15 seconds by which the database's clock is ahead of the host's, or null;
--    $16 the last heartbeat of a daemon of this name that has been silent for the timeout, or null
select operator_id, interactive_slots, settlement_slots, requests_per_s, is_fair
  from predictu_dispatch.heartbeat($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
