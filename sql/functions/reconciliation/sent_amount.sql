-- Returns the amount, in subunits, of the request that the operator confirmed, as the audit has it.
-- Null if there is none or it cannot be read. `ledger` calls it only for a payout whose params cannot
-- be read.
create or replace function predictu_dispatch.sent_amount(operator_id text, request_id uuid) returns bigint
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    format text;
    sent text[];
begin
    format := (select c.amount_format from predictu_dispatch.callback c
                where c.operator_id = sent_amount.operator_id and c.request_id = sent_amount.request_id);
    sent := predictu_dispatch.body_money((
        select a.request_body from predictu_dispatch.attempt a
         where a.operator_id = sent_amount.operator_id and a.request_id = sent_amount.request_id
           and a.verdict = 'delivered' order by a.attempt desc limit 1));
    return sent[4]::numeric
           * case format when 'decimal' then 10::numeric ^ predictu_dispatch.currency_digits(sent[3]) else 1 end;
exception when others then
    return null;
end $$;

revoke all on function predictu_dispatch.sent_amount from public;
grant execute on function predictu_dispatch.sent_amount
    to predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;
