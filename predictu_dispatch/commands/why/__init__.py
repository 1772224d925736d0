"""`why`: the reasons why a callback is not being sent now, and the sentence of each."""
