"""What a turn costs, against other ways to make the same call. `python -m benchmarks` runs all of it."""
