"""Weights of other tools in and out: strict, every difference named.

The one stored form of weights is a flat dictionary of arrays under their torch names
and in torch layout; see `torch_names`.
"""

import dataclasses
import fnmatch
import functools
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging
from flax import linen as nn
from flax import traverse_util

from tufl_jax import models
from tufl_jax.errors import UserError
from tufl_jax.models import released, torch_names
from tufl_jax.models.weight_files import read_weights


@dataclasses.dataclass(frozen=True)
class Report:
    """How the arrays of a file and the parameters of a network match, by torch name.

    Attributes:
      loaded: names in both with equal shapes.
      missing: parameters that the file lacks.
      unexpected: arrays that the network lacks.
      mismatched: 'name: file SHAPE, model SHAPE'.
      ignored: arrays that never count (step counters, the ImageNet classifier).
      prefix: what was stripped from every name, often ''.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    ignored: tuple[str, ...]
    prefix: str

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} arrays"]
        if self.prefix:
            lines.append(f"stripped prefix '{self.prefix}'")
        for label in ("missing", "unexpected", "mismatched", "ignored"):
            if names := getattr(self, label):
                lines.append(f"{label} {len(names)}: {_some(names)}")
        return "; ".join(lines)


def from_torch(
    arrays: dict[str, np.ndarray],
    model: nn.Module,
    *,
    variables: dict | None = None,
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    abs_scale: bool = False,
) -> dict:
    """Makes the variables of a whole network from its torch state dict.

    Args:
      arrays: torch name -> array in torch layout.
      model: from `models.build`.
      variables: what parameters that may be missing keep; needed only with
        `allow_missing`.
      allow_missing, allow_unexpected: shell patterns of torch names that may differ,
        such as 'conv_out16.*'. `num_batches_tracked` is always ignored.
      abs_scale: replace the scale of each batch norm by |scale| + 1e-5, which is what
        in-place activated batch norm computed with. For weights trained with it.

    Returns:
      {'params', 'batch_stats'} of float32 NumPy arrays. Logs what differed.

    Raises:
      UserError: naming the arrays that are missing, unexpected, of another shape or
        not finite.
    """
    shapes = models.shapes(model)
    wanted = {k: v.shape for k, v in torch_names.flatten(shapes).items()}
    arrays, prefix = torch_names.strip_prefix(arrays, wanted)
    arrays, ignored = _drop(arrays, ("*num_batches_tracked",))
    report = _match(arrays, wanted, ignored, prefix)
    _check(report, allow_missing, allow_unexpected)
    return _fill(arrays, shapes, report, variables, abs_scale)


def backbone_from_torch(
    arrays: dict[str, np.ndarray],
    model: nn.Module,
    variables: dict,
    *,
    abs_scale: bool = False,
) -> dict:
    """Replaces the backbone in `variables` by a torchvision classification network.

    Every backbone parameter must be there; `fc.*` and `num_batches_tracked` are
    ignored. Otherwise as `from_torch`.
    """
    shapes = models.shapes(model)
    arrays, prefix = torch_names.strip_prefix(arrays, ("conv1.weight",))
    arrays, ignored = _drop(arrays, ("*num_batches_tracked", "fc.weight", "fc.bias"))
    arrays, report = _match_backbone(arrays, model, shapes, ignored, prefix)
    _check(report, (), ())
    return _fill(arrays, shapes, report, variables, abs_scale)


def _match_backbone(arrays, model, shapes, ignored, prefix):
    """The arrays under the names they have in the model, and the Report."""
    start = "".join(f"{module}." for module in model.BACKBONE)
    parts = tuple(start + part for part in released.RESNET_PARTS)
    named = torch_names.flatten(shapes)
    wanted = {k: v.shape for k, v in named.items() if k.startswith(parts)}
    if not any(".downsample.0." in k for k in wanted):
        arrays = {torch_names.released(k): v for k, v in arrays.items()}
    arrays = {start + k: v for k, v in arrays.items()}
    return arrays, _match(arrays, wanted, ignored, prefix)


def compare(known: released.Recognised) -> Report:
    """How a recognised file fits the network that it was recognised as.

    Raises:
      UserError: as `from_torch` and `backbone_from_torch`.
    """
    shapes = models.shapes(known.model)
    arrays = known.arrays
    if known.backbone:
        arrays, report = _match_backbone(arrays, known.model, shapes, known.ignored, "")
    else:
        wanted = {k: v.shape for k, v in torch_names.flatten(shapes).items()}
        report = _match(arrays, wanted, known.ignored, "")
    _check(report, (), ())
    for name, value in arrays.items():
        _check_finite(name, value)
    return report


def to_torch(variables: dict, model: nn.Module) -> dict[str, np.ndarray]:
    """The inverse of `from_torch`, bit for bit: torch name -> array in torch layout.

    Raises UserError when the variables are not those of the model.
    """
    wanted = {k: v.shape for k, v in torch_names.flatten(models.shapes(model)).items()}
    host = jax.tree.map(np.asarray, variables)
    arrays = {k: np.ascontiguousarray(v) for k, v in torch_names.flatten(host).items()}
    _check(_match(arrays, wanted, (), ""), (), ())
    return arrays


def load(path: str, model: nn.Module, variables: dict) -> dict:
    """Reads a weights file into `variables`: a whole network or only its backbone.

    Which of the two is told by the names in the file. Raises UserError as
    `read_weights`, `from_torch` and `backbone_from_torch` do, with the path in front.
    """
    arrays = read_weights(path)
    try:
        known = released.recognise(arrays)
        if known.backbone:
            return backbone_from_torch(known.arrays, model, variables)
        return from_torch(known.arrays, model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def load_network(path: str, model: nn.Module) -> dict:
    """Reads the variables of a whole network; as `load`, but a backbone is refused."""
    arrays = read_weights(path)
    try:
        known = released.recognise(arrays)
        if known.backbone:
            raise UserError(f"holds a trunk without a head ({known.title})")
        return from_torch(known.arrays, model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _drop(arrays, patterns):
    ignored = tuple(k for k in arrays if _matches(k, patterns))
    return {k: v for k, v in arrays.items() if k not in ignored}, ignored


def _matches(name, patterns) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _match(arrays, wanted, ignored, prefix) -> Report:
    both = [k for k in wanted if k in arrays]
    return Report(
        loaded=tuple(k for k in both if arrays[k].shape == tuple(wanted[k])),
        missing=tuple(k for k in wanted if k not in arrays),
        unexpected=tuple(k for k in arrays if k not in wanted),
        mismatched=tuple(
            f"{k}: file {_shape(arrays[k].shape)}, model {_shape(wanted[k])}"
            for k in both
            if arrays[k].shape != tuple(wanted[k])
        ),
        ignored=ignored,
        prefix=prefix,
    )


def _check(report: Report, allow_missing, allow_unexpected) -> None:
    """Logs the report; raises UserError for what is not allowed."""
    missing = [k for k in report.missing if not _matches(k, allow_missing)]
    unexpected = [k for k in report.unexpected if not _matches(k, allow_unexpected)]
    problems = [
        f"{label} {len(names)} ({_some(names)})"
        for label, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("other shape", report.mismatched),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"weights do not fit the model: {', '.join(problems)}; "
            f"{len(report.loaded)} arrays fit. Is it the right architecture, width and "
            "number of classes?"
        )
    logging.info("weights: %s", report)


def _fill(arrays, shapes, report: Report, variables, abs_scale) -> dict:
    """Variables with the loaded arrays; the rest is copied from `variables`."""
    loaded = set(report.loaded)
    old = torch_names.flatten(variables or {})

    def value(name, kind, shape):
        if name not in loaded:
            if name not in old:
                raise UserError(f"'{name}' is missing and there is no first value")
            first = torch_names.from_layout(old[name])
            if first.shape != shape:
                raise UserError(f"'{name}' is missing and its first value does not fit")
            return first
        array = torch_names.from_layout(np.asarray(arrays[name], np.float32))
        _check_finite(name, array)
        if abs_scale and kind == "scale":
            array = np.abs(array) + np.float32(1e-5)
        return array

    def fill(collection, path, like):
        parts = torch_names.parts(collection, path, like)
        values = [value(name, path[-1], part.shape) for name, part in parts]
        return np.stack(values).reshape(like.shape)

    return {
        collection: traverse_util.path_aware_map(
            functools.partial(fill, collection), tree
        )
        for collection, tree in shapes.items()
    }


def _check_finite(name, value) -> None:
    if not np.isfinite(value).all():
        raise UserError(f"'{name}' has values that are not finite")


def _shape(shape) -> str:
    return "x".join(map(str, shape))


def _some(names, limit: int = 4) -> str:
    more = f", ... {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
