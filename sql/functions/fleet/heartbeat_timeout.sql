-- A daemon without a heartbeat for this long counts as stopped.
create or replace function predictu_dispatch.heartbeat_timeout() returns interval language sql immutable parallel safe
return interval '3 seconds';

revoke all on function predictu_dispatch.heartbeat_timeout from public;
grant execute on function predictu_dispatch.heartbeat_timeout to predictu_dispatcher, predictu_support, predictu_operations;
