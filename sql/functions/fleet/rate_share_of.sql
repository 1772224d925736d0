-- Divides a rate as share_of() does, in whole requests a second. The first daemon gets the fraction
-- as well, so that the shares add up exactly.
create or replace function predictu_dispatch.rate_share_of(most double precision, daemons bigint, place bigint)
returns double precision language sql immutable parallel safe
return case when place < daemons then floor((floor(most) + daemons - 1 - place) / daemons) else 0 end
       + case place when 0 then most - floor(most) else 0 end;

revoke all on function predictu_dispatch.rate_share_of from public;
