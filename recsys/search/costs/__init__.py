"""What a trial costs: `work` counts what an epoch computes, `predict` learns from the trials."""
