-- Settles one delivered attempt after which nothing follows; false if settle() must decide.
-- The parameters are the fields of a report, in the order of settle().
select predictu_dispatch.settle_one($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                                    $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38) as is_settled
