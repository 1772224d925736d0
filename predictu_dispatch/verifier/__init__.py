"""Verifies a bundle of `predictu-dispatch dispute` offline, for readers who trust nobody.

The folder imports only PyNaCl and cryptography from outside itself, so it can be copied anywhere
and started with `python FOLDER FILE`. It was written from evidence/FORMAT.md and the C2SP
specifications and shares no code with the program that makes the bundles. README.md explains what
it proves.

archive.py (the ZIP), canonical.py (JSON), entries.py (entries of the log), merkle.py, notes.py and
policy.py (the log), tokens.py (our signature), manifest.py (bundle.json), records.py, keys.py and
attempts.py (the statements), verify.py (all checks in order), cli.py (the command).
"""
