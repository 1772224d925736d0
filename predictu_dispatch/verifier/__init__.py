"""Verifies a bundle of `predictu-dispatch dispute` offline, for somebody who trusts nobody.

The folder imports only PyNaCl and cryptography from outside itself, so it can be copied anywhere
and started with `python FOLDER FILE`. It was written from evidence/FORMAT.md and the C2SP
specifications and shares no code with the program that makes the bundles. README.md explains what
it proves.

archive.py (the ZIP, strictly), canonical.py (JSON), entries.py (what the log seals), merkle.py,
notes.py and policy.py (the log), tokens.py (our signature), manifest.py (bundle.json), records.py,
attempts.py and others.py (the checks), verify.py (all of them in order), cli.py (the printing).
"""
