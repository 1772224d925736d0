-- Up to which transaction rows are sealed. Snapshots are numbers, as in written_in without its offset.
select p.xid_offset, p.sealed_at, clock_timestamp() as read_at,
       p.system_identifier = (select c.system_identifier from pg_control_system() c)
           and pg_snapshot_xmax(p.sealed_until) <= pg_snapshot_xmax(pg_current_snapshot()) as is_same_cluster,
       pg_snapshot_xmax(p.sealed_until)::text::bigint as sealed_xmax,
       array(select x::text::bigint from pg_snapshot_xip(p.sealed_until) x) as sealed_xip,
       pg_snapshot_xmax(p.backlog_until)::text::bigint as backlog_xmax,
       array(select x::text::bigint from pg_snapshot_xip(p.backlog_until) x) as backlog_xip
  from predictu_dispatch.audit_position p
