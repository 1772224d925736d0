"""The verbs of `predictu-dispatch`, a module for each family; only `cli.py` imports them."""
