"""An operator's wallet backend for Predictu's callbacks, as a start for an integration.

The folder imports only aiohttp, PyJWT and cryptography from outside itself, so it can be copied
anywhere and started with `python -m reference_operator`. README.md explains its decisions. The way
of a callback: receiver (HTTP), verify (who sent it), callback (what it says), wallet (one SQLite
transaction, decided by rules), faults (change the reply, on request only), receiver.
"""
