-- Reads every stored row again, for those that are in no log.
select predictu_dispatch.audit_rescan()
