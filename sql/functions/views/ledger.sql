-- Lists the confirmed money movements: one row for each delivered callback that moved money. Not a
-- rollback answered nothing_to_reverse, nor one whose debit was never confirmed. An adopted bet's
-- debit was confirmed before this system existed. New columns come last.
-- player_id, currency and amount are what was sent: the callback's params. If they cannot be read, they
-- are the bet's; the amount of a win or sale is the audit's. If that cannot be read either, the row is
-- still here, with a null amount: a sum over the view must count such rows.
-- By operator_id and confirmed_at, ordered by confirmed_at and request_id, it streams from the index
-- callback_finished.
create or replace view predictu_dispatch.ledger as
select c.operator_id, c.request_id, c.bet_id, coalesce(read.money[1], b.player_id) as player_id,
       coalesce(read.money[2], b.currency) as currency, case c.method when 'BET_MAKE' then 'debit' else 'credit' end as direction,
       sent.amount, c.method, c.finished_at as confirmed_at, c.operator_transaction_id
  from predictu_dispatch.callback c
 -- With the offsets, the params are read once, and the only plans are lookups by key.
 cross join lateral (select predictu_dispatch.params_money(c.params) as money offset 0) read
  left join lateral (
      select b.player_id, b.currency, b.amount, b.placement_request_id from predictu_dispatch.bet b
       where (read.money is null or c.method = 'BET_ROLLBACK') and b.operator_id = c.operator_id and b.bet_id = c.bet_id
      offset 0) b on true
 cross join lateral (
     select case when read.money is not null then read.money[3]::bigint
                 when c.method in ('BET_WIN', 'BET_SELL') then predictu_dispatch.sent_amount(c.operator_id, c.request_id)
                 else b.amount end as amount
     offset 0) sent
 where c.state = 'delivered' and c.bet_id is not null and c.finished_at is not null and c.method <> 'BET_LOSE'
   and c.reason is distinct from 'nothing_to_reverse'
   and (sent.amount > 0) is not false
   and (c.method <> 'BET_ROLLBACK' or not exists (
       select from predictu_dispatch.callback placement
        where placement.operator_id = c.operator_id and placement.request_id = b.placement_request_id
          and placement.effect <> 'applied' offset 0));

revoke all on table predictu_dispatch.ledger from public;
grant select on predictu_dispatch.ledger to predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;

comment on column predictu_dispatch.ledger.operator_id is 'The operator.';
comment on column predictu_dispatch.ledger.request_id is 'The callback, under whose id the operator booked it.';
comment on column predictu_dispatch.ledger.bet_id is 'Its bet.';
comment on column predictu_dispatch.ledger.player_id is 'The operator''s id of the player.';
comment on column predictu_dispatch.ledger.currency is 'The currency of amount.';
comment on column predictu_dispatch.ledger.direction is 'debit or credit, as the player''s wallet sees it.';
comment on column predictu_dispatch.ledger.amount is 'Subunits, above 0. Null only if neither the callback nor its audit can be read.';
comment on column predictu_dispatch.ledger.method is 'The callback''s method.';
comment on column predictu_dispatch.ledger.confirmed_at is 'When the callback became final.';
comment on column predictu_dispatch.ledger.operator_transaction_id is 'The transaction_id in the operator''s last answer.';
