"""The verbs of `predictu-dispatch`, a module for each family. `cli.py` lists them; nothing else imports them."""
