"""What a load test decides: when to send, what an answer counts as, what the run says."""
