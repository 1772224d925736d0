-- Returns the lane of a method, or null for an unknown method.
create or replace function predictu_dispatch.lane_of(method text) returns text language sql immutable parallel safe
return case when method in ('PING', 'BALANCE', 'BET_MAKE', 'BET_ROLLBACK') then 'interactive'
            when method in ('BET_WIN', 'BET_LOSE', 'BET_SELL', 'BET_REFUND') then 'settlement' end;

revoke all on function predictu_dispatch.lane_of from public;
