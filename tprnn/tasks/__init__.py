"""One file per task: how a batch is made and what counts as a right answer."""
