-- compatible_from: 0001
-- A daemon's row says which key it signs with for each operator, and since when:
-- {"op_abc123": {"key_id": "…", "since": "…"}}; null for a daemon of an earlier release.
alter table predictu_dispatch.daemon add column signing_keys jsonb;

-- The review list has player, currency and the reason's code, so that a screen can name the money
-- and group the callbacks of one cause. A view's columns can only be changed by creating it again.
drop view if exists predictu_dispatch.needs_review;
