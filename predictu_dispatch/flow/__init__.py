"""Who calls whom, and when. It carries values between core and the edge, behind protocols."""
