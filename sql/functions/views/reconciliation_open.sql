-- Lists the differences that count now: those of the newest finished run that covers their day, if no
-- newer run has found the booking that they lack and nobody has accepted them. New columns come last.
create or replace view predictu_dispatch.reconciliation_open as
select i.operator_id, i.item_id, i.run_id, i.class, i.currency, i.disputed, i.day, i.key, i.request_id, i.method, i.bet_id,
       i.player_id, i.transaction_id, i.confirmed_at, i.amounts, i.lines
  from predictu_dispatch.reconciliation_item i
 where i.is_open;

revoke all on table predictu_dispatch.reconciliation_open from public;
grant select on predictu_dispatch.reconciliation_open
    to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;

comment on column predictu_dispatch.reconciliation_open.operator_id is 'The operator.';
comment on column predictu_dispatch.reconciliation_open.item_id is 'The difference; the same in every run while nothing changes.';
comment on column predictu_dispatch.reconciliation_open.run_id is 'The run that found it.';
comment on column predictu_dispatch.reconciliation_open.class is 'Its class; see predictu_dispatch/reconciliation/README.md.';
comment on column predictu_dispatch.reconciliation_open.currency is 'The currency of disputed.';
comment on column predictu_dispatch.reconciliation_open.disputed is 'What must be settled, in subunits.';
comment on column predictu_dispatch.reconciliation_open.day is 'Its accounting day.';
comment on column predictu_dispatch.reconciliation_open.key is 'What it is about: request:ID, transaction:ID, bet:ID/METHOD or line:SOURCE/LINE.';
comment on column predictu_dispatch.reconciliation_open.amounts is 'Our and their amount for each currency and day, in subunits.';
comment on column predictu_dispatch.reconciliation_open.lines is 'The lines of the operator''s ledger.';
