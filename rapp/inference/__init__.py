"""What measured points say of a network: laws of latency, the learned structure, the posterior. numpy alone."""
