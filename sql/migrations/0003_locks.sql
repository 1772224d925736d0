-- compatible_from: 0001
-- Our locks are rows of a table that only the owner may use; see take_lock(). An advisory lock may
-- be taken by every login of the database.

create table predictu_dispatch.lock (
    name  text primary key
);
revoke all on predictu_dispatch.lock from public;

-- The transaction that notifies the daemons, and when it began to commit; see notify_due(). After a
-- crash they begin again.
create unlogged sequence predictu_dispatch.notifier_xid;
create unlogged sequence predictu_dispatch.notifier_began_ms;
revoke all on sequence predictu_dispatch.notifier_xid, predictu_dispatch.notifier_began_ms from public;
