"""The statuses of runs and of the jobs of sweeps, as in summary.json: running, done, pruned, stopped, failed."""

ENDED = ("done", "pruned")
"""Of runs of which nothing is left to train."""

CLOSED = (*ENDED, "failed")
"""Of jobs that are only trained again on request."""
