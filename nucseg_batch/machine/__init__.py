"""What this machine, a control group or a Slurm job gives this process; needs nothing but the standard library."""
