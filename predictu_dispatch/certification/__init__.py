"""Certification: plays scenarios against an operator's sandbox and judges its wallet.

`steps.py`, `observation.py` and `scenario.py` have the model, `scenarios/` the scenarios as data,
`expectations.py` what they expect. `runner.py` plays them, `journal.py` records every request
before it is sent, and `books.py` computes from the journal what must be undone. No daemon imports
this package.
"""
