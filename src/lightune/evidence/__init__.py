"""Is it better, and how sure are we: scores with their intervals, tests, calibration and baselines."""
