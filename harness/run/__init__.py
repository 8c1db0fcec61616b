"""`Plan` -> `Result`s: what is missing is measured, in child processes of this machine or on a cluster.

`runner` decides what is missing and measures it; `batches` says which jobs share a process, `target` on which devices
they run, `worker_pool` lets trainings run side by side.  `launch` starts child processes and Slurm's arrays; `cluster`
submits the missing jobs to Slurm, follows them, and runs a runner on each node.
"""
