-- compatible_from: 0010
-- Retention: what ended long ago leaves the outbox, and audit that belongs to no callback any more goes with its month.
-- Source: DESIGN.md 7 and 11; decisions D60 to D65. By a role of its own: the audit can only grow for every other one.

do $$
begin
    if not exists (select from pg_roles where rolname = 'predictu_retention') then
        create role predictu_retention nologin;
    end if;
exception when duplicate_object or unique_violation then
    null; -- Another database's migration was faster.
end $$;

-- What remains of a removed callback: its id stays taken, and saying it again stays harmless, for ever. So an operator that remembers
-- less than we do never gets a second debit, and none that remembers more takes a new callback for an old one.
create table predictu_dispatch.request_tombstone (
    operator_id  text not null,
    request_id   uuid not null,
    method       text not null,
    -- Half of the SHA-256 of params as Postgres prints them. Null, as state and effect, for the placement of an adopted bet.
    content      bytea check (octet_length(content) = 16),
    state        text,
    reason       text,
    effect       text,
    removed_at   timestamptz not null default now(),
    primary key (operator_id, request_id)
);
-- What remains of a removed bet: there is never another one of its name.
create table predictu_dispatch.bet_tombstone (
    operator_id  text not null,
    bet_id       text not null,
    state        text not null,
    removed_at   timestamptz not null default now(),
    primary key (operator_id, bet_id)
);

create function predictu_dispatch.refuse_removed_change() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'PD900',
        message = format('what was removed stays known: %s on %s is refused', tg_op, tg_table_name),
        hint = 'These rows keep an old request_id from becoming a second debit.';
end $$;
create trigger removed_request_only_grows before update or delete on predictu_dispatch.request_tombstone
    for each row execute function predictu_dispatch.refuse_removed_change();
create trigger removed_request_not_emptied before truncate on predictu_dispatch.request_tombstone
    for each statement execute function predictu_dispatch.refuse_removed_change();
create trigger removed_bet_only_grows before update or delete on predictu_dispatch.bet_tombstone
    for each row execute function predictu_dispatch.refuse_removed_change();
create trigger removed_bet_not_emptied before truncate on predictu_dispatch.bet_tombstone
    for each statement execute function predictu_dispatch.refuse_removed_change();
alter table predictu_dispatch.request_tombstone
    enable always trigger removed_request_only_grows,
    enable always trigger removed_request_not_emptied;
alter table predictu_dispatch.bet_tombstone
    enable always trigger removed_bet_only_grows,
    enable always trigger removed_bet_not_emptied;

-- How far purge_finished() has walked through the table of callbacks. One row; no key, as with schema_migration.
create table predictu_dispatch.purge_cursor (
    cutoff      timestamptz not null,
    -- Null once the end was reached.
    next_block  bigint,
    -- Bets and callbacks that were passed by, because somebody locked them.
    locked        bigint not null default 0
);

-- As get_callback() in 0007: a look-up by the key, whatever the planner thinks of the table's size.
create function predictu_dispatch.get_request_tombstone(operator_id text, request_id uuid) returns setof predictu_dispatch.request_tombstone
language sql stable rows 1 set enable_seqscan = off as $$
    select r.* from predictu_dispatch.request_tombstone r
     where r.operator_id = get_request_tombstone.operator_id and r.request_id = get_request_tombstone.request_id
$$;

create function predictu_dispatch.content_of(params jsonb) returns bytea language sql immutable parallel safe as $$
    select substring(sha256(convert_to(params::text, 'UTF8')) for 16)
$$;

-- As in 0010, and true also for a request whose callback was removed.
create or replace function predictu_dispatch.is_enqueued(operator_id text, request_id uuid, method text, params jsonb) returns boolean
language plpgsql as $$
declare
    earlier record;
begin
    -- A producer that cancels its wait for a synchronous standby leaves a commit that can be seen and may yet be lost. The lock,
    -- which stands in nobody's way, is written down: so this transaction's commit waits for the standby, and for the first's with it.
    select c.method, c.params into earlier from predictu_dispatch.callback c
     where c.operator_id = is_enqueued.operator_id and c.request_id = is_enqueued.request_id for key share;
    if found then
        if earlier.method = method and earlier.params is not distinct from params then
            return true;
        end if;
    else
        -- In a statement of its own: whoever waited above for a removal sees here what it left.
        select r.method, r.content into earlier from predictu_dispatch.get_request_tombstone(operator_id, request_id) r;
        if not found then
            return false;
        elsif earlier.method = method and earlier.content = predictu_dispatch.content_of(params) then
            return true;
        end if;
    end if;
    raise exception using errcode = 'PD004',
        message = format('request_id %s of operator %s is taken by another %s', request_id, operator_id, earlier.method),
        hint = 'The same id may be enqueued again only with the same method and params; use a new id for a new callback.';
end $$;

-- As in 0004; of a removed callback what is still known.
create or replace function predictu_dispatch.outcome(operator_id text, request_id uuid)
returns table (state text, reason text, effect text, operator_status text, operator_transaction_id text, balance bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    return query
    select c.state, c.reason, c.effect, c.operator_status, c.operator_transaction_id, c.balance
      from predictu_dispatch.callback c
     where c.operator_id = outcome.operator_id and c.request_id = outcome.request_id;
    if not found then
        return query
        select r.state, r.reason, r.effect, null::text, null::text, null::bigint
          from predictu_dispatch.get_request_tombstone(outcome.operator_id, outcome.request_id) r
         where r.state is not null;
    end if;
end $$;

-- As in 0003; of a removed bet it says that, whatever else was found to be wrong.
create or replace function predictu_dispatch.refuse_for_bet(operator_id text, bet_id text, what text, fault text, hint text) returns void
language plpgsql set enable_seqscan = off as $$
declare
    removed text := (select r.state from predictu_dispatch.bet_tombstone r
                      where r.operator_id = refuse_for_bet.operator_id and r.bet_id = refuse_for_bet.bet_id);
begin
    if removed is not null then
        fault := format('it was %s when retention removed it', removed);
        hint := 'What ended is never placed, ended or rolled back again; a new placement needs a new bet_id.';
    end if;
    raise exception using errcode = 'PD005', message = format('%s for bet %s of operator %s is refused: %s', what, bet_id, operator_id, fault),
        hint = hint;
end $$;

-- A bet of a removed bet's name, or of a removed placement, is refused, whoever makes it. After the insert: it may have waited for
-- the removal of the very bet. Its name puts it before bet_holds_with_its_callbacks, which would see what an old snapshot still has.
create function predictu_dispatch.guard_removed() returns trigger language plpgsql set enable_seqscan = off as $$
begin
    if exists (select from predictu_dispatch.bet_tombstone r where r.operator_id = new.operator_id and r.bet_id = new.bet_id) then
        perform predictu_dispatch.refuse_for_bet(new.operator_id, new.bet_id, 'placement or adoption', null, null);
    elsif exists (select from predictu_dispatch.request_tombstone r
                   where r.operator_id = new.operator_id and r.request_id = new.placement_request_id) then
        raise exception using errcode = 'PD004',
            message = format('placement_request_id %s of operator %s belongs to a callback or bet that ended and was removed',
                             new.placement_request_id, new.operator_id),
            hint = 'One debit is one bet; use a new id for a new placement.';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        -- A snapshot older than the removal hides it, but not from the unique keys, which then answer 40001.
        begin
            insert into predictu_dispatch.bet_tombstone (operator_id, bet_id, state) values (new.operator_id, new.bet_id, new.state)
            on conflict do nothing;
            insert into predictu_dispatch.request_tombstone (operator_id, request_id, method)
            values (new.operator_id, new.placement_request_id, 'BET_MAKE') on conflict do nothing;
            raise exception using errcode = 'PD901', message = 'undone';
        exception when sqlstate 'PD901' then
            null;
        end;
    end if;
    return null;
end $$;
create trigger bet_differs_from_removed_ones after insert on predictu_dispatch.bet
    for each row execute function predictu_dispatch.guard_removed();

-- Nobody removes what is not over, or what a person must still look at; nor does a session that skips common triggers.
create function predictu_dispatch.refuse_removal() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'PD900',
        message = format('%s %s of operator %s must not be removed: it is %s', tg_table_name,
                         coalesce(to_jsonb(old) ->> 'request_id', to_jsonb(old) ->> 'bet_id'), old.operator_id, old.state),
        hint = 'Only what ended and needs no review is removed; see purge_finished().';
end $$;
create trigger callback_removed_when_over before delete on predictu_dispatch.callback
    for each row when (old.finished_at is null or old.review_since is not null) execute function predictu_dispatch.refuse_removal();
create trigger bet_removed_when_over before delete on predictu_dispatch.bet
    for each row when (old.state in ('placing', 'open')) execute function predictu_dispatch.refuse_removal();
alter table predictu_dispatch.callback enable always trigger callback_removed_when_over;
alter table predictu_dispatch.bet enable always trigger bet_removed_when_over;

-- What ended before this moment is old: whole months of UTC. Raises PD003.
create function predictu_dispatch.retention_cutoff(keep_months integer) returns timestamptz
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
begin
    if keep_months is null or keep_months not between 1 and 1200 then
        perform predictu_dispatch.refuse_params('retention', format('keep_months is %s', coalesce(keep_months::text, 'NULL')),
            'Give whole months from 1 to 1200; to keep everything, remove nothing.');
    end if;
    return (date_trunc('month', now() at time zone 'UTC') - make_interval(months => keep_months)) at time zone 'UTC';
end $$;

-- What both walks begin with: nobody else is at it until this transaction ends. Raises PD003, PD006.
create function predictu_dispatch.lock_retention(blocks integer) returns void language plpgsql as $$
begin
    if blocks is null or blocks not between 1 and 10000 then
        perform predictu_dispatch.refuse_params('retention', format('blocks is %s', coalesce(blocks::text, 'NULL')), 'Give 1 to 10000 blocks.');
    elsif current_setting('transaction_isolation') <> 'read committed' then
        perform predictu_dispatch.refuse_params('retention', format('the transaction is %s', current_setting('transaction_isolation')),
            'Use read committed: an older snapshot hides what came in meanwhile.');
    elsif not pg_try_advisory_xact_lock(hashtext('predictu_dispatch.retention')) then
        perform predictu_dispatch.refuse_locked('the retention');
    end if;
end $$;

-- Removes the old bets, each with all its callbacks, and the old callbacks without a bet, that stand in the next `blocks` blocks of the
-- table of callbacks. A bet is old when all that ever happened to it is; it goes as a whole or not at all. What somebody holds, be it one
-- callback of a bet, is passed by and counted. Nobody waits for this but who names the same bet at the same moment. The walk goes on
-- where the last call ended, and through the whole table once for each cutoff: it needs no index, which every callback would pay
-- for. Raises PD003, PD006.
create function predictu_dispatch.purge_finished(keep_months integer, blocks integer)
returns table (callbacks bigint, bets bigint, locked bigint, next_block bigint, blocks_all bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' set enable_seqscan = off set jit = off as $$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    walk predictu_dispatch.purge_cursor;
    first_tid tid;
    end_tid tid;
    picked record;
    ended record;
    freed bigint;
begin
    perform predictu_dispatch.lock_retention(blocks);
    blocks_all := pg_relation_size('predictu_dispatch.callback') / current_setting('block_size')::bigint;
    callbacks := 0;
    bets := 0;
    select w.* into walk from predictu_dispatch.purge_cursor w;
    if walk.cutoff = cutoff and walk.next_block is null and walk.locked = 0 then
        locked := 0;
        return next; -- All of it is done.
        return;
    elsif walk.cutoff is distinct from cutoff or walk.next_block is null then
        delete from predictu_dispatch.purge_cursor;
        insert into predictu_dispatch.purge_cursor (cutoff, next_block) values (cutoff, 0) returning * into walk;
    end if;
    first_tid := format('(%s,0)', walk.next_block)::tid;
    end_tid := format('(%s,0)', walk.next_block + blocks)::tid;

    -- Bets first, callbacks after them, as everywhere; whether a bet is over is asked in the next statement, under its lock.
    with named as materialized (
        select distinct c.operator_id, c.bet_id from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is not null and c.finished_at < cutoff and c.review_since is null
    ), eligible as materialized (
        select b.operator_id, b.bet_id from named
          join predictu_dispatch.bet b on b.operator_id = named.operator_id and b.bet_id = named.bet_id
         where b.state in ('closed', 'void', 'closing') and b.updated_at < cutoff
    ), locked as materialized (
        select b.operator_id, b.bet_id from eligible
          join predictu_dispatch.bet b on b.operator_id = eligible.operator_id and b.bet_id = eligible.bet_id
         order by b.operator_id, b.bet_id for update of b skip locked
    )
    select (select count(*) from eligible) as eligible, count(*) as locked, array_agg(l.operator_id) as operator_ids,
           array_agg(l.bet_id) as bet_ids
      into picked from locked l;
    locked := picked.eligible - picked.locked;
    -- A bet that is still closing has a terminal that a person resolved, or one that needs review and so keeps it here.
    select array_agg(l.operator_id) as operator_ids, array_agg(l.bet_id) as bet_ids into ended
      from unnest(picked.operator_ids, picked.bet_ids) as l (operator_id, bet_id)
     where not exists (
               select from predictu_dispatch.callback c
                where c.operator_id = l.operator_id and c.bet_id = l.bet_id
                  and (c.finished_at is null or c.finished_at >= cutoff or c.review_since is not null
                       or exists (select from predictu_dispatch.intervention i
                                   where i.operator_id = c.operator_id and i.request_id = c.request_id and i.done_at >= cutoff)))
       and exists (select from predictu_dispatch.bet b where b.operator_id = l.operator_id and b.bet_id = l.bet_id
                      and b.state in ('closed', 'void', 'closing') and b.updated_at < cutoff);
    -- A producer that says an old request again holds its callback, and not the bet.
    locked := locked + coalesce(cardinality(ended.bet_ids), 0);
    with mine as materialized (
        select c.operator_id, c.request_id
          from unnest(ended.operator_ids, ended.bet_ids) as l (operator_id, bet_id)
          join predictu_dispatch.callback c on c.operator_id = l.operator_id and c.bet_id = l.bet_id
           for update of c skip locked
    )
    select array_agg(whole.operator_id) as operator_ids, array_agg(whole.bet_id) as bet_ids into ended
      from (select c.operator_id, c.bet_id
              from unnest(ended.operator_ids, ended.bet_ids) as l (operator_id, bet_id)
              join predictu_dispatch.callback c on c.operator_id = l.operator_id and c.bet_id = l.bet_id
              left join mine on mine.operator_id = c.operator_id and mine.request_id = c.request_id
             group by c.operator_id, c.bet_id having count(*) = count(mine.request_id)) whole;
    locked := locked - coalesce(cardinality(ended.bet_ids), 0);
    -- An id may be taken already: as the placement of an adopted bet.
    with gone as (
        delete from predictu_dispatch.callback c using unnest(ended.operator_ids, ended.bet_ids) as o (operator_id, bet_id)
         where c.operator_id = o.operator_id and c.bet_id = o.bet_id returning c.*
    ), kept as (
        insert into predictu_dispatch.request_tombstone (operator_id, request_id, method, content, state, reason, effect)
        select g.operator_id, g.request_id, g.method, predictu_dispatch.content_of(g.params), g.state, g.reason, g.effect
          from gone g on conflict do nothing
    )
    select count(*) into callbacks from gone;
    with gone as (
        delete from predictu_dispatch.bet b using unnest(ended.operator_ids, ended.bet_ids) as o (operator_id, bet_id)
         where b.operator_id = o.operator_id and b.bet_id = o.bet_id returning b.*
    ), adopted as (
        -- The id by which the operator knows the debit of an adopted bet; of any other bet it is there already.
        insert into predictu_dispatch.request_tombstone (operator_id, request_id, method)
        select g.operator_id, g.placement_request_id, 'BET_MAKE' from gone g on conflict do nothing
    )
    insert into predictu_dispatch.bet_tombstone (operator_id, bet_id, state) select g.operator_id, g.bet_id, g.state from gone g;
    get diagnostics bets = row_count;

    with found as materialized (
        select c.operator_id, c.request_id from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is null and c.finished_at < cutoff and c.review_since is null
           for update skip locked
    ), gone as (
        delete from predictu_dispatch.callback c using found
         where c.operator_id = found.operator_id and c.request_id = found.request_id returning c.*
    ), kept as (
        -- PINGs are made here by the thousand, and nothing is ever booked under their ids.
        insert into predictu_dispatch.request_tombstone (operator_id, request_id, method, content, state, reason, effect)
        select g.operator_id, g.request_id, g.method, predictu_dispatch.content_of(g.params), g.state, g.reason, g.effect
          from gone g where g.method <> 'PING' on conflict do nothing
    )
    select count(*) into freed from gone;
    -- What is still there was locked.
    locked := locked + (
        select count(*) from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is null and c.finished_at < cutoff and c.review_since is null);
    callbacks := callbacks + freed;
    next_block := case when walk.next_block + blocks < blocks_all then walk.next_block + blocks end;
    update predictu_dispatch.purge_cursor w set next_block = purge_finished.next_block, locked = walk.locked + purge_finished.locked;
    return next;
end $$;

-- The audit. A month of it, once old, is replaced by what still belongs to a callback: a bet that is open, or needs review, or ended later,
-- keeps all its rows; when nothing does, the month goes without a successor. So rows leave only with a whole partition. A part is
-- named by its month, 2024_01, or is 'default'; `attempt_<part>` is attached, `kept_<part>` is its successor being filled, `retired_<part>`
-- is what was replaced.

-- How far purge_audit() has gone through which parts. No key: one row for a part, because only one transaction at a time is at it.
create table predictu_dispatch.audit_purge_cursor (
    part        text not null,
    -- The very table that is walked through, so that what was seen of one is never believed of another one of its name.
    source      oid not null,
    -- Null once the end was reached.
    next_block  bigint,
    scanned     bigint not null default 0,
    needed      bigint not null default 0,
    moved_at    timestamptz not null default now()
);

-- The parts that are old, in order, with the step that is next: 'replace' for what is attached, 'drop' for what was replaced already.
create function predictu_dispatch.expired_audit(keep_months integer, only_part text default null)
returns table (part text, step text, rows_estimated bigint, bytes bigint)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
begin
    return query
    select named.part, case named.kind when 'attempt' then 'replace' else 'drop' end,
           greatest(named.reltuples, 0)::bigint, pg_total_relation_size(named.oid)
      from (select c.oid, c.reltuples, split_part(c.relname::text, '_', 1) as kind, substring(c.relname::text from '_(.*)$') as part,
                   exists (select from pg_inherits i where i.inhrelid = c.oid) as is_attached
              from pg_class c
             where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind = 'r'
               and c.relname ~ '^(attempt|retired)_([0-9]{4}_[0-9]{2}|default)$') named
     where (named.kind = 'attempt') = named.is_attached
       and case when named.part <> coalesce(only_part, named.part) then false
                when named.kind = 'retired' then true
                when named.part <> 'default'
                then (to_date(named.part, 'YYYY_MM') + interval '1 month') at time zone 'UTC' <= cutoff
                -- What no month took goes when all of it is old.
                else exists (select from predictu_dispatch.attempt_default)
                     and not exists (select from predictu_dispatch.attempt_default d where d.started_at >= cutoff) end
     order by named.kind desc, named.part;
end $$;

-- An empty successor for the part, in place of one that an interrupted run may have left.
create function predictu_dispatch.begin_kept_audit(part text) returns void language plpgsql as $$
declare
    kept text := 'kept_' || part;
    month date := case when part <> 'default' then to_date(part, 'YYYY_MM') end;
begin
    execute format('drop table if exists predictu_dispatch.%I', kept);
    execute format('create table predictu_dispatch.%I (like predictu_dispatch.attempt including defaults including constraints including indexes)', kept);
    execute format('create trigger attempt_not_emptied before truncate on predictu_dispatch.%I for each statement '
                   'execute function predictu_dispatch.refuse_audit_change()', kept);
    execute format('alter table predictu_dispatch.%I enable always trigger attempt_not_emptied', kept);
    if month is not null then
        -- What says this already is attached without being read, while all wait.
        execute format('alter table predictu_dispatch.%I add constraint kept_month check (started_at >= %L and started_at < %L)',
                       kept, month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
    end if;
end $$;

-- Takes the part out of the audit and, unless nothing of it is needed, puts its successor in its place, in one transaction. Whoever
-- settles waits for this lock as long as this function takes: a few milliseconds, and lock_timeout at most while others keep it from
-- us; then it raises 55P03 and is to be called again a little later. DETACH CONCURRENTLY cannot be had beside a default partition.
create function predictu_dispatch.replace_audit(part text, with_kept boolean) returns void language plpgsql set lock_timeout = '30ms' as $$
declare
    attached text := 'attempt_' || part;
    month date := case when part <> 'default' then to_date(part, 'YYYY_MM') end;
begin
    if with_kept and month is not null and pg_relation_size('predictu_dispatch.attempt_default') > 1048576 then
        -- Attaching a month reads the default partition for rows of it, while all wait.
        raise exception using errcode = '55000', message = format('part %s stays: the default partition is too large to attach beside it', part),
            hint = 'It goes by itself when all of its rows are old.';
    end if;
    -- The whole audit first, with patience; then nobody but an autovacuum can have the parts, and it is not waited for.
    lock table only predictu_dispatch.attempt in access exclusive mode;
    lock table only predictu_dispatch.attempt_default in access exclusive mode nowait;
    execute format('lock table only predictu_dispatch.%I in access exclusive mode nowait', attached);
    execute format('alter table predictu_dispatch.attempt detach partition predictu_dispatch.%I', attached);
    execute format('alter table predictu_dispatch.%I rename to %I', attached, 'retired_' || part);
    if month is null then
        execute format('alter table predictu_dispatch.%I rename to %I', 'kept_' || part, attached);
        execute format('alter table predictu_dispatch.attempt attach partition predictu_dispatch.%I default', attached);
    elsif with_kept then
        execute format('alter table predictu_dispatch.%I rename to %I', 'kept_' || part, attached);
        execute format('alter table predictu_dispatch.attempt attach partition predictu_dispatch.%I for values from (%L) to (%L)',
                       attached, month::text || ' 00:00:00+00', (month + interval '1 month')::date::text || ' 00:00:00+00');
        execute format('alter table predictu_dispatch.%I drop constraint kept_month', attached);
    else
        execute format('drop table predictu_dispatch.%I', 'kept_' || part);
    end if;
end $$;

-- The next step of an old part's end, a transaction each. First what is needed of the attached part is copied to its successor, `blocks`
-- blocks at a time; at its end the one replaces the other, or both stay as they are where all is needed. Then what was replaced is
-- gone through once more, for what came in meanwhile, and dropped: with that is_done. Needed is what belongs to a callback. Which step is
-- next, only the database knows: nobody can leave one out, and two who call this in turns do the same work together. Raises PD003,
-- PD006; 55P03 and 55000 where the part cannot be had now.
create function predictu_dispatch.purge_audit(keep_months integer, part text, blocks integer)
returns table (step text, scanned bigint, needed bigint, is_done boolean)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' set enable_seqscan = off set jit = off as $$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    kept text := 'kept_' || part;
    source text;
    target text;
    walk predictu_dispatch.audit_purge_cursor;
    first_tid tid;
    end_tid tid;
begin
    perform predictu_dispatch.lock_retention(blocks);
    select a.step into step from predictu_dispatch.expired_audit(keep_months, coalesce(part, '')) a order by a.step limit 1;
    if not found then
        perform predictu_dispatch.refuse_params('retention', format('part %s is not old', coalesce(quote_literal(left(part, 80)), 'NULL')),
            'Take the part from expired_audit().');
    end if;
    source := case step when 'replace' then 'attempt_' else 'retired_' end || part;
    target := case step when 'replace' then kept else 'attempt' end;
    select w.* into walk from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
    -- What an interrupted run has seen is not built upon: the less comes in behind a walk, the less is missing until the part is gone.
    if walk.source is distinct from to_regclass('predictu_dispatch.' || source)::oid or walk.moved_at < now() - interval '1 hour'
       or (step = 'replace' and to_regclass('predictu_dispatch.' || kept) is null) then
        delete from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
        insert into predictu_dispatch.audit_purge_cursor (part, source, next_block)
        values (part, to_regclass('predictu_dispatch.' || source)::oid, 0) returning * into walk;
        if step = 'replace' then
            perform predictu_dispatch.begin_kept_audit(part);
        end if;
    end if;
    is_done := false;
    if walk.next_block is not null then
        first_tid := format('(%s,0)', walk.next_block)::tid;
        end_tid := format('(%s,0)', walk.next_block + blocks)::tid;
        execute format($statement$
            insert into predictu_dispatch.%I
            select s.* from predictu_dispatch.%I s
             where s.ctid >= $1 and s.ctid < $2
               and (s.started_at >= $3 or exists (
                   select from predictu_dispatch.callback c where c.operator_id = s.operator_id and c.request_id = s.request_id))
               -- A report said again meanwhile stands in the audit as late; the row that decided is another one.
               and not exists (
                   select from predictu_dispatch.%I t
                    where t.operator_id = s.operator_id and t.request_id = s.request_id and t.attempt = s.attempt
                      and t.started_at = s.started_at and t.report_id = s.report_id and (t.verdict = 'late') = (s.verdict = 'late'))
            $statement$, target, source, target)
          using first_tid, end_tid, cutoff;
        execute format($statement$
            select count(*), count(*) filter (where s.started_at >= $3 or exists (
                       select from predictu_dispatch.callback c where c.operator_id = s.operator_id and c.request_id = s.request_id))
              from predictu_dispatch.%I s where s.ctid >= $1 and s.ctid < $2
            $statement$, source)
           into scanned, needed using first_tid, end_tid, cutoff;
        update predictu_dispatch.audit_purge_cursor w
           set scanned = walk.scanned + purge_audit.scanned, needed = walk.needed + purge_audit.needed, moved_at = now(),
               next_block = case when (walk.next_block + blocks) * current_setting('block_size')::bigint
                                      < pg_relation_size(format('predictu_dispatch.%I', source)) then walk.next_block + blocks end
         where w.part = purge_audit.part returning * into walk;
    else
        if step = 'drop' then
            execute format('drop table predictu_dispatch.%I', source);
            is_done := true;
        elsif walk.needed = walk.scanned and walk.scanned > 0 then
            execute format('drop table predictu_dispatch.%I', kept);
            is_done := true;
        else
            perform predictu_dispatch.replace_audit(part, walk.needed > 0);
        end if;
        delete from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
    end if;
    scanned := walk.scanned;
    needed := walk.needed;
    return next;
end $$;

-- Which schema a daemon knows: the version of the last migration that its build has. So `migrate` can tell whom a migration would leave
-- behind. It counts for the session that said it; of a daemon of an earlier build nothing is known.
alter table predictu_dispatch.daemon
    add column schema_version          integer,
    add column schema_version_said_by  uuid;

-- As in 0007, with that version.
create function predictu_dispatch.heartbeat(
    instance text, session_id uuid, host text, pid integer, version text, operator_ids text[], interactive_max integer[],
    settlement_max integer[], requests_per_s_max double precision[], interactive_used integer[], settlement_used integer[],
    requests_per_s_used double precision[], schema_version integer
) returns table (
    operator_id text, interactive_slots integer, settlement_slots integer, requests_per_s double precision, is_fair boolean
) language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
#variable_conflict use_column
begin
    return query
    select * from predictu_dispatch.heartbeat(instance, session_id, host, pid, version, operator_ids, interactive_max, settlement_max,
                                             requests_per_s_max, interactive_used, settlement_used, requests_per_s_used);
    update predictu_dispatch.daemon d
       set schema_version = heartbeat.schema_version, schema_version_said_by = heartbeat.session_id
     where d.instance = heartbeat.instance and d.session_id = heartbeat.session_id
       and (d.schema_version, d.schema_version_said_by) is distinct from (heartbeat.schema_version, heartbeat.session_id);
end $$;

revoke all on all functions in schema predictu_dispatch from public;
grant usage on schema predictu_dispatch to predictu_retention;
grant execute on function
    predictu_dispatch.retention_cutoff(integer), predictu_dispatch.purge_finished(integer, integer), predictu_dispatch.expired_audit(integer, text),
    predictu_dispatch.purge_audit(integer, text, integer)
    to predictu_retention;
grant execute on function predictu_dispatch.heartbeat(text, uuid, text, integer, text, text[], integer[], integer[], double precision[], integer[],
                                                     integer[], double precision[], integer)
    to predictu_dispatcher;
grant select on predictu_dispatch.schema_migration, predictu_dispatch.purge_cursor to predictu_retention;
grant select on predictu_dispatch.request_tombstone, predictu_dispatch.bet_tombstone, predictu_dispatch.purge_cursor
    to predictu_dispatcher, predictu_support;
