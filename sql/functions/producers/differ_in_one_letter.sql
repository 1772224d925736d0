-- Returns true if the texts differ by one letter that is wrong, missing or extra, or by two
-- neighbouring letters that are swapped.
create or replace function predictu_dispatch.differ_in_one_letter(a text, b text) returns boolean language sql immutable parallel safe
return (
    select substr(a, i + 1) = substr(b, i + 1) or substr(a, i) = substr(b, i + 1) or substr(a, i + 1) = substr(b, i)
           or (substr(a, i, 1) = substr(b, i + 1, 1) and substr(a, i + 1, 1) = substr(b, i, 1)
               and substr(a, i + 2) = substr(b, i + 2))
      from generate_series(1, length(b) + 1) i
     where substr(a, i, 1) <> substr(b, i, 1) and abs(length(a) - length(b)) <= 1
     order by i limit 1
);

revoke all on function predictu_dispatch.differ_in_one_letter from public;
