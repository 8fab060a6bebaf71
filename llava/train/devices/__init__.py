"""Where training runs: processes, sharding, dtypes, and how much memory it takes."""
