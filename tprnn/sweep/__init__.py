"""Any set of runs, from plan to outcomes."""
