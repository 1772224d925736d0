-- Removes the old bets and the old callbacks without a bet in the next `blocks` blocks of the
-- callback table. A bet is old if all its events are old; it is removed with all its callbacks or
-- not at all. Locked rows are skipped and counted, as are callbacks under a legal hold. It continues where the last call ended and reads
-- the whole table once for each cutoff. This needs no index, which would slow every callback.
-- Raises PD003, PD006.
create or replace function predictu_dispatch.purge_finished(keep_months integer, blocks integer)
returns table (callbacks bigint, bets bigint, locked bigint, next_block bigint, blocks_all bigint, held bigint)
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms'
set enable_seqscan = off set jit = off as $$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    cursor predictu_dispatch.purge_cursor;
    first_tid tid;
    end_tid tid;
    candidates record;
    ended record;
    single_callbacks bigint;
    is_any_held boolean := exists (select from predictu_dispatch.legal_hold h where h.lifted_at is null);
begin
    perform predictu_dispatch.lock_retention(blocks);
    blocks_all := pg_relation_size('predictu_dispatch.callback') / current_setting('block_size')::bigint;
    callbacks := 0;
    bets := 0;
    select w.* into cursor from predictu_dispatch.purge_cursor w;
    if cursor.cutoff = cutoff and cursor.next_block is null and cursor.locked = 0 then
        locked := 0;
        held := cursor.held;
        return next; -- Nothing is left for this cutoff.
        return;
    elsif cursor.cutoff is distinct from cutoff or cursor.next_block is null then
        delete from predictu_dispatch.purge_cursor;
        insert into predictu_dispatch.purge_cursor (cutoff, next_block) values (cutoff, 0) returning * into cursor;
        update predictu_dispatch.removed_history h set removed_before = greatest(h.removed_before, cutoff);
        if not found then
            insert into predictu_dispatch.removed_history (removed_before) values (cutoff);
        end if;
    end if;
    first_tid := format('(%s,0)', cursor.next_block)::tid;
    end_tid := format('(%s,0)', cursor.next_block + blocks)::tid;

    -- Bets first, callbacks after them. The next statement checks, under the bet's lock, whether it
    -- has ended.
    with named as materialized (
        select distinct c.operator_id, c.bet_id from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is not null and c.finished_at < cutoff
           and c.review_since is null
    ), eligible as materialized (
        select b.operator_id, b.bet_id from named
          join predictu_dispatch.bet b on b.operator_id = named.operator_id and b.bet_id = named.bet_id
         where b.state in ('closed', 'void', 'closing') and b.updated_at < cutoff
           and not (is_any_held and exists (
               select from predictu_dispatch.legal_hold h
                where h.operator_id = b.operator_id and h.lifted_at is null and (h.bet_id is null or h.bet_id = b.bet_id)))
    ), locked as materialized (
        select b.operator_id, b.bet_id from eligible
          join predictu_dispatch.bet b on b.operator_id = eligible.operator_id and b.bet_id = eligible.bet_id
         order by b.operator_id, b.bet_id for update of b skip locked
    )
    select (select count(*) from eligible) as eligible, count(*) as locked, array_agg(l.operator_id) as operator_ids,
           array_agg(l.bet_id) as bet_ids
      into candidates from locked l;
    locked := candidates.eligible - candidates.locked;
    -- A bet that is still closing has a terminal that was resolved, or one that needs review and
    -- keeps the bet here.
    select array_agg(l.operator_id) as operator_ids, array_agg(l.bet_id) as bet_ids into ended
      from unnest(candidates.operator_ids, candidates.bet_ids) as l (operator_id, bet_id)
     where not exists (
               select from predictu_dispatch.callback c
                where c.operator_id = l.operator_id and c.bet_id = l.bet_id
                  and (c.finished_at is null or c.finished_at >= cutoff or c.review_since is not null
                       or exists (select from predictu_dispatch.intervention i
                                   where i.operator_id = c.operator_id and i.request_id = c.request_id
                                     and i.done_at >= cutoff)))
       and exists (select from predictu_dispatch.bet b where b.operator_id = l.operator_id and b.bet_id = l.bet_id
                      and b.state in ('closed', 'void', 'closing') and b.updated_at < cutoff);
    -- A producer that repeats an old request locks its callback, and not the bet.
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
    -- On conflict: the id may be that of an adopted bet's placement.
    with removed as (
        delete from predictu_dispatch.callback c
         using unnest(ended.operator_ids, ended.bet_ids) as o (operator_id, bet_id)
         where c.operator_id = o.operator_id and c.bet_id = o.bet_id returning c.*
    ), tombstones as (
        insert into predictu_dispatch.request_tombstone
            (operator_id, request_id, method, content, state, reason, effect, finished_at)
        select g.operator_id, g.request_id, g.method, predictu_dispatch.readable_digest(g.params), g.state, g.reason,
               g.effect, g.finished_at
          from removed g on conflict do nothing
    )
    select count(*) into callbacks from removed;
    with removed as (
        delete from predictu_dispatch.bet b using unnest(ended.operator_ids, ended.bet_ids) as o (operator_id, bet_id)
         where b.operator_id = o.operator_id and b.bet_id = o.bet_id returning b.*
    ), adopted as (
        -- The operator knows an adopted bet's debit by this id; other bets have a tombstone for it.
        insert into predictu_dispatch.request_tombstone (operator_id, request_id, method)
        select g.operator_id, g.placement_request_id, 'BET_MAKE' from removed g on conflict do nothing
    )
    insert into predictu_dispatch.bet_tombstone
        (operator_id, bet_id, state, placement_request_id, terminal_request_id)
    select g.operator_id, g.bet_id, g.state, g.placement_request_id, g.terminal_request_id from removed g;
    get diagnostics bets = row_count;

    with found as materialized (
        select c.operator_id, c.request_id from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is null and c.finished_at < cutoff
           and c.review_since is null
           and not (is_any_held and exists (
               select from predictu_dispatch.legal_hold h
                where h.operator_id = c.operator_id and h.lifted_at is null and h.bet_id is null))
           for update skip locked
    ), removed as (
        delete from predictu_dispatch.callback c using found
         where c.operator_id = found.operator_id and c.request_id = found.request_id returning c.*
    ), tombstones as (
        -- PINGs are many, and no operator books anything under their ids.
        insert into predictu_dispatch.request_tombstone
            (operator_id, request_id, method, content, state, reason, effect, finished_at)
        select g.operator_id, g.request_id, g.method, predictu_dispatch.readable_digest(g.params), g.state, g.reason,
               g.effect, g.finished_at
          from removed g where g.method <> 'PING' on conflict do nothing
    )
    select count(*) into single_callbacks from removed;
    -- The old ones that remain were locked.
    locked := locked + (
        select count(*) from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is null and c.finished_at < cutoff
           and c.review_since is null
           and not (is_any_held and exists (
               select from predictu_dispatch.legal_hold h
                where h.operator_id = c.operator_id and h.lifted_at is null and h.bet_id is null)));
    callbacks := callbacks + single_callbacks;
    held := 0;
    if is_any_held then
        held := (
            select count(*) from predictu_dispatch.callback c
             where c.ctid >= first_tid and c.ctid < end_tid and c.finished_at < cutoff and c.review_since is null
               and exists (
                   select from predictu_dispatch.legal_hold h
                    where h.operator_id = c.operator_id and h.lifted_at is null and (h.bet_id is null or h.bet_id = c.bet_id)));
    end if;
    next_block := case when cursor.next_block + blocks < blocks_all then cursor.next_block + blocks end;
    update predictu_dispatch.purge_cursor w
       set next_block = purge_finished.next_block, locked = cursor.locked + purge_finished.locked,
           held = cursor.held + purge_finished.held;
    return next;
end $$;

revoke all on function predictu_dispatch.purge_finished from public;
grant execute on function predictu_dispatch.purge_finished to predictu_retention;
