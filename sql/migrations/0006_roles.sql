-- Least privilege. Roles belong to the whole cluster, so they may be there already, also by another database's migration in this
-- moment. Give them to login roles: grant predictu_dispatcher to dispatch_host_1.

do $$
declare
    role text;
begin
    foreach role in array array['predictu_producer', 'predictu_dispatcher', 'predictu_support'] loop
        begin
            if not exists (select from pg_roles where rolname = role) then
                execute format('create role %I nologin', role);
            end if;
        exception when duplicate_object or unique_violation then
            null; -- Another database's migration was faster.
        end;
    end loop;
end $$;

revoke all on all functions in schema predictu_dispatch from public;
revoke all on all tables in schema predictu_dispatch from public;

grant usage on schema predictu_dispatch to predictu_producer, predictu_dispatcher, predictu_support;
-- Producers: the four functions and nothing else.
grant execute on function
    predictu_dispatch.enqueue_callback(text, text, jsonb, uuid, timestamptz), predictu_dispatch.rollback_bet(text, text, text),
    predictu_dispatch.adopt_bet(text, text, text, text, bigint, uuid), predictu_dispatch.outcome(text, uuid)
    to predictu_producer;
-- Daemons: the functions of 0005, and reading.
grant execute on function
    predictu_dispatch.sync_operators(text[], boolean[], double precision[], double precision[], text[]),
    predictu_dispatch.claim(text, text[], text[], integer[], double precision[], double precision[], text[]),
    predictu_dispatch.settle(predictu_dispatch.report[]), predictu_dispatch.expire(integer),
    predictu_dispatch.prepare_partitions(integer), predictu_dispatch.minor_digits(text)
    to predictu_dispatcher;
grant select on predictu_dispatch.callback, predictu_dispatch.attempt, predictu_dispatch.bet, predictu_dispatch.operator,
    predictu_dispatch.needs_review, predictu_dispatch.schema_migration
    to predictu_dispatcher, predictu_support;
grant execute on function predictu_dispatch.minor_digits(text) to predictu_support;
