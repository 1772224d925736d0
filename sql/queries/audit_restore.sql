-- Continues the logs in another cluster; returns false if it is the same one.
select predictu_dispatch.audit_restore() as is_restored
