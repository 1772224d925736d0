-- Checks params as far as that is possible without the bet. Raises PD003. enqueue_callback() does the
-- same within itself, which is faster.
create or replace function predictu_dispatch.check_params(method text, params jsonb) returns void
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
declare
    is_currency_known boolean := exists (
        select from predictu_dispatch.currency c where c.currency = params ->> 'currency');
    refusal text[] := predictu_dispatch.wrong_params(method, params, is_currency_known);
begin
    if refusal is not null then
        perform predictu_dispatch.refuse_params(method, refusal[1], refusal[2]);
    end if;
end $$;

revoke all on function predictu_dispatch.check_params from public;
