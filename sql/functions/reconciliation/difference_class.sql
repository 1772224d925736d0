-- Returns the class of an item with these facts: the table of predictu_dispatch/core/difference_classes.py;
-- a test compares them. It is one expression and becomes a part of its caller's.
create or replace function predictu_dispatch.difference_class(
    is_readable boolean, is_in_window boolean, contradicts boolean, knowledge text, lines bigint,
    may_be_elsewhere boolean, is_currency_equal boolean, is_player_equal boolean, is_amount_equal boolean,
    is_debit_standing boolean, other_end text, is_without_end boolean, is_day_equal boolean
) returns text language sql immutable parallel safe
return case
    when not is_readable then 'unreadable'
    when not is_in_window then 'out_of_window'
    when contradicts then 'ours'
    when knowledge = 'pending' or may_be_elsewhere then 'in_flight'
    when lines > 1 then 'booked_twice'
    when not is_currency_equal then 'currency_differs'
    when not is_player_equal then 'player_differs'
    when not is_amount_equal then 'amount_differs'
    when lines > 0 and knowledge = 'rejected' then 'booked_though_rejected'
    when lines > 0 and knowledge = 'never_sent' then 'booked_though_never_sent'
    when is_debit_standing then 'debit_standing'
    when other_end = 'rolled_back' then 'rolled_back_but_credited'
    when other_end = 'ended' then 'two_ends'
    when is_without_end then 'no_end'
    when not is_day_equal then 'day_differs'
    when knowledge = 'unknown' then 'agreed_resolves_unknown'
    when knowledge = 'confirmed' and lines > 0 or knowledge in ('rejected', 'never_sent') then 'agreed'
    when knowledge = 'confirmed' then 'missing_there'
    else 'missing_here'
end;

revoke all on function predictu_dispatch.difference_class from public;
grant execute on function predictu_dispatch.difference_class to predictu_reconciler;
