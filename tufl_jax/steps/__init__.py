"""The three trainings: one step, three loss functions."""

from tufl_jax.steps import source, stage1, stage2

# A stage is a module with METRICS and loss_fn(params, state, batch, keys, ctx).
STAGES = {"source": source, "stage1": stage1, "stage2": stage2}
