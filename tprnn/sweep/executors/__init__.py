"""What carries a sweep: this machine, SLURM, Ray."""
