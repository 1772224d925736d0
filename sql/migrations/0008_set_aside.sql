-- compatible_from: 0001
-- A callback that the database cannot process stops no other one: claim_apart() and expire_apart()
-- process each by itself, and claim() can leave callbacks out. guard_callback() no longer reads
-- params, so a callback whose params are unreadable can still end.
drop function if exists predictu_dispatch.claim(
    text, text[], text[], integer[], double precision[], double precision[], text[], timestamptz[]);
drop function if exists predictu_dispatch.get_callback(text, uuid);
delete from predictu_dispatch.schema_function where name in ('dispatch/claim.sql', 'bets/get_callback.sql');
