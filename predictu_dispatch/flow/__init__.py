"""Who calls whom, and when: carries values between the pure core and the edge, which it knows by protocols only."""
