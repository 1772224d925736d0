"""The verbs, one module for each noun they are about. `cli.py` gathers them; nothing else imports them."""
