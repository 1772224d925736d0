-- compatible_from: 0001
-- A daemon's row says which key it signs with for each operator, and since when:
-- {"op_abc123": {"key_id": "…", "since": "…"}}; null for a daemon of an earlier release.
alter table predictu_dispatch.daemon add column signing_keys jsonb;
