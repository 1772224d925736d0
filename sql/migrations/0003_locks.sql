-- compatible_from: 0001
-- Our locks are rows of a table that only the owner may use; see take_lock(). An advisory lock may
-- be taken by every login of the database.

create table predictu_dispatch.lock (
    name  text primary key
);
revoke all on predictu_dispatch.lock from public;
