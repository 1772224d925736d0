-- Returns true if a key is a misspelling of one of ours. It then differs only in upper and lower case,
-- underscores, hyphens, dots or spaces (playerId, player-id), or also, if ours has six letters or more,
-- in one letter or two swapped ones between its first and its last letter (ammount, curency), and in
-- its first word: player_uid and market_gid are other keys. Keys with a meaning of their own are none:
-- player_id_hash, amount_eur, amounts, amount2, outcomes, market.
create or replace function predictu_dispatch.is_misspelling(given text, ours text) returns boolean
language sql immutable parallel safe
return (
    select a = b or (length(b) >= 6 and left(a, 1) = left(b, 1) and right(a, 1) = right(b, 1)
                     and (first_letters < 0 or left(a, first_letters) <> left(b, first_letters))
                     and predictu_dispatch.differ_in_one_letter(a, b))
      from (select translate(lower(given collate "C"), '_-. ', ''), translate(ours, '_', ''), strpos(ours, '_') - 1)
           as letters (a, b, first_letters)
);

revoke all on function predictu_dispatch.is_misspelling from public;
