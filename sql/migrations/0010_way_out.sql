-- compatible_from: 0001
-- A person may abandon a callback that is being retried, and retire an operator that is gone for
-- good. Older daemons keep running: sync_operators() leaves a retired operator as it is.

alter table predictu_dispatch.operator
    -- Nothing is enqueued or sent any more, and no daemon may take its file; see retire_operator().
    add column retired_at timestamptz,
    add column retired_by text,
    add column retire_reason text,
    add constraint operator_retired_by_someone
        check ((retired_at is null) = (retired_by is null) and (retired_at is null) = (retire_reason is null));

alter table predictu_dispatch.intervention
    drop constraint if exists intervention_action_check,
    drop constraint if exists intervention_check,
    drop constraint if exists intervention_check1,
    add constraint intervention_action_known
        check (action in ('pause', 'resume', 'retire', 'retry', 'cancel', 'abandon', 'resolve')),
    add constraint intervention_names_its_callback
        check ((request_id is null) = (action in ('pause', 'resume', 'retire'))),
    add constraint intervention_has_a_reason check (reason is not null or action in ('resume', 'retry'));
-- `interventions` reads it backwards from the newest.
create index intervention_by_time on predictu_dispatch.intervention (done_at);

-- The result of abandon_callback().
create type predictu_dispatch.abandonment as (
    operator_id text, request_id uuid, method text, bet_id text, state text, effect text, attempts integer,
    -- True if the callback is on the review list.
    needs_review boolean,
    -- The bet afterwards, and its rollback that is not final; null if there is none.
    bet_state text, rollback_request_id uuid,
    -- What may remain at the operator; null if nothing.
    warning text,
    abandoned_at timestamptz, abandoned_by text, abandon_reason text,
    -- True if it was abandoned before; then nothing was changed.
    is_repeated boolean
);

-- It may lock a row now, so it is no longer stable.
drop function if exists predictu_dispatch.enabled_operator(text);
delete from predictu_dispatch.schema_function where name = 'producers/enabled_operator.sql';
