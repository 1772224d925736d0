"""A casino operator's complete wallet backend for Predictu's server-to-server protocol, to start an integration from.

The folder stands alone: outside itself it imports only aiohttp, PyJWT and cryptography, so it can be copied anywhere
and started with `python -m reference_operator`. README.md beside this file explains every decision. A callback's way
through it: receiver (HTTP) -> reception: verify (who sent it), callback (what it says) -> wallet (one SQLite
transaction, decided by rules) -> faults (what is done to the answer, on request only) -> receiver.
"""
