"""The outside world: each module translates one external interface and decides nothing."""
