"""`why`: the reasons why a callback is not being sent now.

The command, and the sentence of each reason.
"""
