"""The trainings: one step, a loss function for each."""

from tufl_jax.steps import cyclegan, source, stage1, stage2

# A stage is a module with METRICS and loss_fn(params, state, batch, keys, ctx).
STAGES = {
    "source": source,
    "stage1": stage1,
    "stage2": stage2,
    "cyclegan": cyclegan,
}
