-- Divides a limit among the first `daemons` daemons; the remainder goes to the first ones.
create or replace function predictu_dispatch.share_of(most integer, daemons bigint, place bigint) returns integer
language sql immutable parallel safe
return case when place < daemons then (most / daemons + (place < most % daemons)::integer)::integer else 0 end;

revoke all on function predictu_dispatch.share_of from public;
