-- Summarizes new pages of the audit for audit_unsealed(); see the function.
select predictu_dispatch.audit_summarize()
