-- compatible_from: 0001
-- Who may do what: roles for people, importers and auditors, the operators of a producer, and the
-- age below which no retention run removes anything. The grants on functions are in their files.

-- As in 0001_schema.sql, and with a message for logins that may not create roles.
do $$
declare
    role text;
begin
    foreach role in array array['predictu_operations', 'predictu_importer', 'predictu_auditor'] loop
        begin
            if not exists (select from pg_roles where rolname = role) then
                execute format('create role %I nologin', role);
            end if;
        exception
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise exception using errcode = 'insufficient_privilege',
                    message = format('role %s is missing, and %s may not create roles', role, session_user),
                    hint = 'Run this as a login with CREATEROLE, then migrate again: create role predictu_operations nologin; '
                           'create role predictu_importer nologin; create role predictu_auditor nologin;';
        end;
    end loop;
end $$;

-- If a login has rows here, it may enqueue, roll back, adopt and read outcomes for these operators
-- only; see check_producer_scope(). Only the owner writes it.
create table predictu_dispatch.producer_scope (
    operator_id  text not null,
    -- The login, as in session_user.
    role_name    name not null,
    primary key (operator_id, role_name)
);
create index producer_scope_of_role on predictu_dispatch.producer_scope (role_name, operator_id);

-- The months that retention keeps at least, whatever the login of a run asks for. Only the owner
-- writes it. No key: it has one row; without one, retention_cutoff() uses the same default.
create table predictu_dispatch.retention_floor (
    months  integer not null default 24 check (months between 1 and 1200)
);
alter table predictu_dispatch.retention_floor replica identity full;
-- A database whose retention has run may keep less: the floor is what its last run kept. One month
-- less, because that run may have been last month.
insert into predictu_dispatch.retention_floor (months)
select least(24, greatest(1, min(extract(year from kept.age) * 12 + extract(month from kept.age)) - 1))
  from (select age(date_trunc('month', now() at time zone 'UTC'), c.cutoff at time zone 'UTC')
          from predictu_dispatch.purge_cursor c) kept (age)
having count(*) > 0;
insert into predictu_dispatch.retention_floor (months)
select 24 where not exists (select from predictu_dispatch.retention_floor);

-- What the database itself knows about an intervention. Defaults are set afterwards, so that older
-- rows stay null.
alter table predictu_dispatch.intervention
    add column bet_id text,
    -- The client's address; null for a local socket. Behind a pooling proxy it is the proxy's.
    add column client_addr inet,
    -- The columns of the callback or the operator that people decide by, before and after.
    add column before jsonb,
    add column after jsonb;
alter table predictu_dispatch.intervention alter column client_addr set default inet_client_addr();

-- Its parameters change; its file creates it again.
drop function if exists predictu_dispatch.record_intervention(text, uuid, text, text, text, timestamptz);

revoke all on predictu_dispatch.producer_scope, predictu_dispatch.retention_floor from public;
grant usage on schema predictu_dispatch to predictu_operations, predictu_importer, predictu_auditor;
grant select on predictu_dispatch.schema_migration, predictu_dispatch.purge_cursor, predictu_dispatch.operator,
    predictu_dispatch.bet, predictu_dispatch.callback, predictu_dispatch.attempt, predictu_dispatch.daemon,
    predictu_dispatch.share, predictu_dispatch.intervention, predictu_dispatch.request_tombstone,
    predictu_dispatch.bet_tombstone, predictu_dispatch.producer_scope, predictu_dispatch.retention_floor
    to predictu_operations;
grant select on predictu_dispatch.producer_scope, predictu_dispatch.retention_floor to predictu_support;
-- The history, and not the state of the fleet.
grant select on predictu_dispatch.schema_migration, predictu_dispatch.operator, predictu_dispatch.bet,
    predictu_dispatch.callback, predictu_dispatch.attempt, predictu_dispatch.intervention,
    predictu_dispatch.request_tombstone, predictu_dispatch.bet_tombstone, predictu_dispatch.producer_scope,
    predictu_dispatch.retention_floor
    to predictu_auditor;
