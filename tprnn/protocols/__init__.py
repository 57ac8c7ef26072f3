"""What is done with runs: many at once, climbing in depth, judging at other lengths, rebuilding a paper's table."""
