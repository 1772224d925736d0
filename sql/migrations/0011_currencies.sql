-- compatible_from: 0001
-- outcome() says when a callback became final, and outcome_of_bet() returns the same for a bet, also
-- after retention removed it. The new columns are null in older tombstones.
drop function if exists predictu_dispatch.outcome(text, uuid);
delete from predictu_dispatch.schema_function where name = 'producers/outcome.sql';
alter table predictu_dispatch.request_tombstone add column finished_at timestamptz;
alter table predictu_dispatch.bet_tombstone
    add column placement_request_id uuid,
    add column terminal_request_id uuid;

-- The currencies: a reference table, the only list of them. ISO 4217's are those that were active when
-- this was written; the owner adds further ones, see add_currency(). A row is never changed or removed.
create table predictu_dispatch.currency (
    currency     text primary key check (currency ~ '^[0-9]*[A-Z][A-Z0-9]*$' and length(currency) between 3 and 10),
    -- An amount of 1 unit has 10 ^ minor_digits subunits. Amounts have at most 18 digits.
    minor_digits integer not null check (minor_digits between 0 and 18),
    -- False if the owner has added it.
    is_iso_4217  boolean not null default false,
    added_at     timestamptz not null default now(),
    -- The login that added it.
    added_by     text not null default session_user
);
insert into predictu_dispatch.currency (currency, minor_digits, is_iso_4217)
select code, digits, true
  from (values
    (0, 'BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF'),
    (2, 'AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP
         BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD
         FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD
         KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD
         NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP
         SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED
         VES WST XCD XCG YER ZAR ZMW ZWG'),
    (3, 'BHD IQD JOD KWD LYD OMR TND'),
    (4, 'CLF UYW')
  ) as of_digits (digits, codes)
 cross join regexp_split_to_table(codes, '[^A-Z]+') as code;

revoke all on predictu_dispatch.currency from public;
grant select on predictu_dispatch.currency
    to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor;

drop function if exists predictu_dispatch.check_text(text, text, jsonb);
