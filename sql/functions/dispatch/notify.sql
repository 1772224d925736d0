-- Sends a notification when the transaction commits; returns false if it sends none. All our
-- notifications are sent here. They are hints, and the queue belongs to the whole server: a session
-- that listens and leaves a transaction open can fill it, and then the commit itself fails. So nothing
-- is sent while the queue is more than half full, or after `set predictu_dispatch.notify = off`, which
-- a transaction needs before PREPARE TRANSACTION.
create or replace function predictu_dispatch.notify(channel text, payload text) returns boolean language sql
return case when pg_notification_queue_usage() <= 0.5
             and coalesce(current_setting('predictu_dispatch.notify', true), '') not in ('off', 'false', 'no', '0')
            then pg_notify(channel, payload) is not null else false end;

revoke all on function predictu_dispatch.notify from public;
