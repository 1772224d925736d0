-- Returns the keys that params must have. predictu_dispatch/core/methods.py lists the same keys; a
-- test compares the two.
create or replace function predictu_dispatch.required_params(method text) returns text[] language sql immutable parallel safe
return (
    case method
        when 'PING' then '{}'::text[]
        when 'BALANCE' then '{player_id,currency}'
        when 'BET_MAKE' then '{player_id,currency,amount,bet_id,bet}'
        when 'BET_LOSE' then '{player_id,bet_id}'
        when 'BET_ROLLBACK' then '{player_id,currency,amount,bet_id,rollback_of}'
        else '{player_id,currency,amount,bet_id}'
    end
);

revoke all on function predictu_dispatch.required_params from public;
