-- Makes sure that no other retention run is active until this transaction ends. Raises PD003,
-- PD006.
create or replace function predictu_dispatch.lock_retention(blocks integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if blocks is null or blocks not between 1 and 10000 then
        perform predictu_dispatch.refuse_params('retention', format('blocks is %s', coalesce(blocks::text, 'NULL')),
            'Give 1 to 10000 blocks.');
    elsif current_setting('transaction_isolation') <> 'read committed' then
        perform predictu_dispatch.refuse_params('retention',
            format('the transaction is %s', current_setting('transaction_isolation')),
            'Use read committed: an older snapshot hides rows that were written meanwhile.');
    elsif not predictu_dispatch.take_lock('retention', waits => false) then
        perform predictu_dispatch.refuse_locked('retention');
    end if;
end $$;

revoke all on function predictu_dispatch.lock_retention from public;
