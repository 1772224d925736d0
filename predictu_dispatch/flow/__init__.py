"""Who calls whom, and when: carries values between core and edge, which it knows by protocols only."""
