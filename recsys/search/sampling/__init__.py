"""What a study tries next: the samplers.

- `samplers` makes the one that `study.sampler` names; start here.
- `improvement` is the default: expected improvement for its cost.
- `observations` reads the record for it, `vectors` turns points of a space into vectors,
  `gaussian_process` predicts values, and `candidates` are the points that it chooses from.
"""
