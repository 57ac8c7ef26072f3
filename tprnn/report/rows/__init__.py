"""What came out of runs, as rows: scores, intervals, verdicts."""
