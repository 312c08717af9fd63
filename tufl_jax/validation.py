"""Values of a config that cannot work are refused before anything is read."""

from ml_collections import ConfigDict

from tufl_jax import labels
from tufl_jax.config import domains, flatten
from tufl_jax.errors import UserError

ADAPTATION = ("stage1", "stage2")
SEGMENTATION = ("source", *ADAPTATION)
STAGES = (*SEGMENTATION, "cyclegan")
BATCH_NORM = ("frozen", "trained", "per_domain")
OPTIMIZERS = ("sgd", "adamw")
UNSUPERVISED = ("focal", "neutral", "shannon", "maximum_squares", "confidence")
DTYPES = ("float32", "bfloat16")
NORMALIZATIONS = ("imagenet", "unit", "caffe")
MODULATIONS = ("per_class", "argmax", "difference")
CHOICES = {
    "loss.threshold": ("dynamic", "fixed", "none"),
    "loss.supervised": ("cross_entropy", "ohem"),
    "loss.mean_over": ("labelled", "all"),
    "loss.squares_sign": (-1.0, 1.0),
    "thresholds.variant": ("paper", "released"),
    "thresholds.update_per": ("step", "head"),
    "thresholds.pixels": ("valid", "all"),
    "thresholds.mask": ("own", "main"),
    "mixing.pasted": ("half", "always"),
    "mixing.target_weight": ("one", "confident_share"),
}
# The least and the most that a setting may be.
RANGES = {
    "thresholds.momentum": (0.0, 1.0),
    "thresholds.proportion": (0.0, 1.0),
    "augment.fourier": (0.0, 0.5),
    "optim.constant": (0.0, 1.0),
    "loss.hardest": (0.0, 1.0),
    "loss.ohem_share": (0.0, 1.0),
    "loss.image_wise_ratio": (0.0, 1.0),
    "mixing.long_tail_probability": (0.0, 1.0),
    "mixing.confidence": (0.0, 1.0),
}


def validate(config: ConfigDict) -> None:
    """Raise UserError for the first value that cannot work."""
    _one_of("stage", config.stage, STAGES)
    _one_of("model.batch_norm", config.model.batch_norm, BATCH_NORM)
    _one_of("model.normalization", config.model.normalization, NORMALIZATIONS)
    _one_of("model.dtype", config.model.dtype, DTYPES)
    _one_of("optim.name", config.optim.name, OPTIMIZERS)
    labels.of_config(config)  # names, colours and count fit each other
    _one_of("loss.unsupervised", config.loss.unsupervised, UNSUPERVISED)
    _one_of("loss.modulation", config.loss.modulation, MODULATIONS)
    for key, allowed in CHOICES.items():
        section, name = key.split(".")
        _one_of(key, config[section][name], allowed)
    if len(config.loss.class_weights) not in (0, config.num_classes):
        raise UserError(
            f"config.loss.class_weights has {len(config.loss.class_weights)} values "
            f"for {config.num_classes} classes"
        )
    if not 0.0 < config.thresholds.init < 1.0:
        raise UserError(
            f"config.thresholds.init: {config.thresholds.init} not in (0, 1)"
        )
    for key, (least, most) in RANGES.items():
        section, name = key.split(".")
        if not least <= config[section][name] <= most:
            raise UserError(
                f"config.{key}: {config[section][name]} not in [{least:g}, {most:g}]"
            )
    _losses(config.loss)
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
    _evaluation(config.eval)
    source, target = config.data.source, config.data.target
    if "target" in domains(config) and tuple(source.crop) != tuple(target.crop):
        raise UserError(
            f"config.data.target.crop {tuple(target.crop)} must equal "
            f"config.data.source.crop {tuple(source.crop)}: they share a forward pass"
        )
    for name in domains(config):
        size = config.data[name].batch_size
        if size % config.train.accumulate:
            raise UserError(
                f"config.data.{name}.batch_size: {size} images cannot be split into "
                f"{config.train.accumulate} equal parts (config.train.accumulate)"
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
    _style(config)


def _style(config: ConfigDict) -> None:
    """Refuse what a style translation cannot do."""
    style, crop = config.style, tuple(config.data.source.crop)
    if style.tile is not None and (
        len(style.tile) != 2 or min(style.tile) <= style.overlap
    ):
        raise UserError(
            f"config.style.tile: {tuple(style.tile)} is not (height, width) in pixels, "
            f"both more than config.style.overlap {style.overlap}"
        )
    if config.stage != "cyclegan":
        return
    if min(crop) < 32 or any(side % 4 for side in crop):
        raise UserError(
            f"config.data.source.crop {crop}: stage cyclegan needs multiples of 4, at "
            "least 32"
        )
    if config.train.accumulate != 1:
        raise UserError(
            "config.train.accumulate belongs to the other stages: in stage cyclegan "
            "each image counts alone, so lower config.data.*.batch_size"
        )
    if style.lambda_semantic and not config.teacher.run:
        raise UserError(
            "config.style.lambda_semantic needs config.teacher.run: the workdir of a "
            "run with the network of config.model, such as a source training"
        )


def _losses(config: ConfigDict) -> None:
    """Refuse options of the unsupervised loss that would do harm or nothing."""
    if config.temperature <= 0:
        raise UserError(f"config.loss.temperature: {config.temperature} must be > 0")
    if not 0 < config.ohem_probability < 1:
        raise UserError(
            f"config.loss.ohem_probability: {config.ohem_probability} not in (0, 1)"
        )
    squares = config.unsupervised == "maximum_squares"
    if squares and config.squares_sign < 0 and config.released_floor:
        raise UserError(
            "config.loss.released_floor takes away the whole loss 'maximum_squares', "
            "which is negative: set it to False, or config.loss.squares_sign to 1.0"
        )
    if not squares and config.image_wise_ratio:
        raise UserError(
            "config.loss.image_wise_ratio belongs to the loss 'maximum_squares', not "
            f"to {config.unsupervised!r}"
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
        "style.width": 1,
        "style.blocks": 0,
        "style.lambda_cycle": 0,
        "style.lambda_identity": 0,
        "style.lambda_semantic": 0,
        "style.pool": 0,
        "style.samples": 1,
        "style.overlap": 0,
        "mixing.donors_per_class": 1,
        "mixing.donors_per_step": 1,
        "mixing.long_tail_draws": 0,
        "mixing.long_tail_extra": 0,
        "mixing.long_tail_fewer": 0,
        "mixing.boundary_size": 0,
        "optim.warmup_steps": 0,
        "train.keep_checkpoints": 1,
        "train.accumulate": 1,
        "loss.gamma": 0,
        "loss.epsilon": 0,
        "loss.lambda_u": 0,
        "loss.lambda_m": 0,
        "thresholds.decay": 0,
    }
    values = dict(flatten(config.to_dict()))
    for key, smallest in least.items():
        if values[key] < smallest:
            raise UserError(f"config.{key}: {values[key]} is less than {smallest}")
    if config.mixing.boundary_size and config.mixing.boundary_size % 2 == 0:
        raise UserError(
            f"config.mixing.boundary_size: {config.mixing.boundary_size} is not odd"
        )


def _evaluation(settings: ConfigDict) -> None:
    for key in ("resize", "window", "stride", "tile"):
        size = settings[key]
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise UserError(
                f"config.eval.{key}: {tuple(size)} is not (height, width) in pixels"
            )
    if not settings.scales or min(settings.scales) <= 0:
        raise UserError(
            f"config.eval.scales: {tuple(settings.scales)}: give positive factors"
        )
    if settings.stride is not None and settings.window is None:
        raise UserError("config.eval.stride needs config.eval.window beside it")
    if settings.stride is not None and any(
        s > w for s, w in zip(settings.stride, settings.window, strict=True)
    ):
        raise UserError(
            f"config.eval.stride: {tuple(settings.stride)} leaves gaps between windows "
            f"of {tuple(settings.window)}"
        )


def _one_of(key: str, value, allowed: tuple) -> None:
    if value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise UserError(f"config.{key}: {value!r} is not one of {names}")
