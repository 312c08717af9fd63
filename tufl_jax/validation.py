"""Values of a config that cannot work are refused before anything is read."""

from ml_collections import ConfigDict

from tufl_jax import labels
from tufl_jax.config import flatten
from tufl_jax.errors import UserError

STAGES = ("source", "stage1", "stage2")
BATCH_NORM = ("frozen", "trained", "per_domain")
OPTIMIZERS = ("sgd", "adamw")
UNSUPERVISED = ("focal", "neutral", "shannon", "maximum_squares", "confidence")
NORMALIZATIONS = ("imagenet", "unit", "caffe")
MODULATIONS = ("per_class", "argmax", "difference")


def validate(config: ConfigDict) -> None:
    """Raise UserError for the first value that cannot work."""
    _one_of("stage", config.stage, STAGES)
    _one_of("model.batch_norm", config.model.batch_norm, BATCH_NORM)
    _one_of("model.normalization", config.model.normalization, NORMALIZATIONS)
    _one_of("optim.name", config.optim.name, OPTIMIZERS)
    labels.of_config(config)  # names, colours and count fit each other
    _one_of("loss.unsupervised", config.loss.unsupervised, UNSUPERVISED)
    _one_of("loss.modulation", config.loss.modulation, MODULATIONS)
    _one_of("loss.threshold", config.loss.threshold, ("dynamic", "fixed"))
    _one_of("thresholds.variant", config.thresholds.variant, ("paper", "released"))
    if len(config.loss.class_weights) not in (0, config.num_classes):
        raise UserError(
            f"config.loss.class_weights has {len(config.loss.class_weights)} values "
            f"for {config.num_classes} classes"
        )
    if not 0.0 < config.thresholds.init < 1.0:
        raise UserError(
            f"config.thresholds.init: {config.thresholds.init} not in (0, 1)"
        )
    for key in ("momentum", "proportion"):
        if not 0.0 <= config.thresholds[key] <= 1.0:
            raise UserError(
                f"config.thresholds.{key}: {config.thresholds[key]} not in [0, 1]"
            )
    for key in ("num_steps", "log_every", "checkpoint_every"):
        if config.train[key] < 1:
            raise UserError(
                f"config.train.{key}: {config.train[key]}, must be at least 1"
            )
    if config.train.num_steps <= config.optim.warmup_steps:
        raise UserError(
            f"config.train.num_steps: {config.train.num_steps} must be more than the "
            f"{config.optim.warmup_steps} of config.optim.warmup_steps"
        )
    _positive(config)
    source, target = config.data.source, config.data.target
    if config.stage != "source" and tuple(source.crop) != tuple(target.crop):
        raise UserError(
            f"config.data.target.crop {tuple(target.crop)} must equal "
            f"config.data.source.crop {tuple(source.crop)}: they share a forward pass"
        )
    if config.stage == "stage2" and source.batch_size != target.batch_size:
        raise UserError(
            f"stage2 mixes pairs: config.data.source.batch_size {source.batch_size} "
            f"must equal config.data.target.batch_size {target.batch_size}"
        )
    if config.stage == "stage2" and not config.teacher.run:
        raise UserError(
            "stage2 needs config.teacher.run: the workdir of a finished stage-1 run"
        )


def _positive(config: ConfigDict) -> None:
    """Refuse counts below their least value and even boundary sizes."""
    least = {
        "seed": 0,
        "data.num_threads": 1,
        "data.num_workers": 0,
        "data.source.batch_size": 1,
        "data.target.batch_size": 1,
        "eval.batch_size": 1,
        "mixing.donors_per_class": 1,
        "mixing.donors_per_step": 1,
        "mixing.long_tail_draws": 0,
        "mixing.boundary_size": 1,
        "optim.warmup_steps": 0,
        "train.keep_checkpoints": 1,
        "loss.gamma": 0,
    }
    values = dict(flatten(config.to_dict()))
    for key, smallest in least.items():
        if values[key] < smallest:
            raise UserError(f"config.{key}: {values[key]} is less than {smallest}")
    if config.mixing.boundary_size % 2 == 0:
        raise UserError(
            f"config.mixing.boundary_size: {config.mixing.boundary_size} is not odd"
        )


def _one_of(key: str, value, allowed: tuple) -> None:
    if value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise UserError(f"config.{key}: {value!r} is not one of {names}")
