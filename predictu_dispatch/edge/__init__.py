"""One outside thing per module: it translates between that thing and our own words, and decides nothing."""
