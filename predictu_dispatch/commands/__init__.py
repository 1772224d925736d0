"""The verbs of `predictu-dispatch`, a module for each family. `cli.py` lists them.

Nothing else imports them.
"""
