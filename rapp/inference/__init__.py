"""What measured points say of a network: laws of latency, learned structure, posterior; numpy alone."""
