"""Published checkpoints, recognised by the names and shapes of their arrays.

Whatever put a prefix before the names, or called the same layer otherwise, is undone
here; what remains are this project's torch names (`torch_names`) and the network that
they belong to.
"""

import dataclasses
import re

import numpy as np
from flax import linen as nn

from tufl_jax import models
from tufl_jax.errors import UserError
from tufl_jax.models import torch_names

RESNET_PARTS = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
KEYS = ("conv1.weight", "cp.resnet.conv1.weight")
KNOWN = (
    "ResNet-18, -50, -101 and -152 of torchvision or timm, the caffe ResNet-101 of "
    "AdaptSegNet, BiSeNet-ResNet18, and DeepLabV2 with the heads proda, sum4, sum2"
)
# (bottleneck blocks, blocks a stage) -> name.
_RESNETS = {
    (False, (2, 2, 2, 2)): "ResNet-18",
    (True, (3, 4, 6, 3)): "ResNet-50",
    (True, (3, 4, 23, 3)): "ResNet-101",
    (True, (3, 8, 36, 3)): "ResNet-152",
}


@dataclasses.dataclass(frozen=True)
class Recognised:
    """What a weights file holds.

    Attributes:
      title: for people, such as 'DeepLabV2, head proda: 19 classes'.
      model: the network with the widths and classes of the file.
      backbone: whether the file has only its classification trunk.
      arrays: by this project's torch names; a trunk's by torchvision's.
      ignored: names in the file that never count: step counters, classifiers of
        ImageNet or COCO.
      notes: what was changed and what a user has to know, one line each.
    """

    title: str
    model: nn.Module
    backbone: bool
    arrays: dict[str, np.ndarray]
    ignored: tuple[str, ...]
    notes: tuple[str, ...]


def recognise(arrays: dict[str, np.ndarray]) -> Recognised:
    """Tells which network the arrays of a file belong to.

    Args:
      arrays: name -> array as in the file.

    Raises:
      UserError: for a network that no program of this project can use.
    """
    first = ", ".join(list(arrays)[:3])
    plain, prefix = torch_names.strip_prefix(arrays, KEYS)
    ignored = [k for k in plain if k.endswith("num_batches_tracked")]
    plain = {k: v for k, v in plain.items() if k not in ignored}
    notes = [f"prefix '{prefix}' stripped"] if prefix else []
    try:
        if "cp.resnet.conv1.weight" in plain:
            return _bisenet(plain, ignored, notes)
        if any(k.startswith(("layer5.", "layer6.")) for k in plain):
            if prefix.endswith("Scale."):
                # The classifier is another data set's; AdaptSegNet skips it as well.
                heads = [k for k in plain if k.startswith(("layer5.", "layer6."))]
                ignored += heads
                plain = {k: v for k, v in plain.items() if k not in heads}
                return _resnet(plain, ignored, notes, "caffe ")
            return _deeplab(plain, ignored, notes)
        if all(k.startswith((*RESNET_PARTS, "fc.")) for k in plain):
            heads = [k for k in plain if k.startswith("fc.")]
            plain = {k: v for k, v in plain.items() if k not in heads}
            return _resnet(plain, ignored + heads, notes, "")
    except (LookupError, ValueError):  # an array that the rule needs is not there
        pass
    raise UserError(
        f"not a network this project knows (first arrays: {first}); it knows {KNOWN}"
    )


def _resnet(arrays, ignored, notes, origin) -> Recognised:
    blocks = _blocks(arrays)
    name = _RESNETS[("layer1.0.conv3.weight" in arrays, blocks)]
    width = len(arrays["conv1.weight"])
    if name == "ResNet-18":
        model = models.build("bisenet", num_classes=19, width=width)
    else:
        model = models.build("deeplabv2", num_classes=19, width=width, blocks=blocks)
        if not origin:
            notes = [
                *notes,
                "trained with model.stride_place 'torch'; ProDA uses it with 'caffe'",
            ]
    title = f"{origin}{name}: width {width}, classification trunk"
    return Recognised(title, model, True, arrays, tuple(ignored), tuple(notes))


def _bisenet(arrays, ignored, notes) -> Recognised:
    width = len(arrays["cp.resnet.conv1.weight"])
    classes = len(arrays["conv_out.conv_out.weight"])
    aux_heads = "conv_out16.conv_out.weight" in arrays
    if not ignored:
        notes = [
            *notes,
            "no num_batches_tracked: if it was trained with in-place ABN and is not "
            "converted yet, --abs-scale is needed",
        ]
    return Recognised(
        f"BiSeNet-ResNet18: width {width}, {classes} classes, "
        f"{3 if aux_heads else 1} heads",
        models.build("bisenet", num_classes=classes, width=width, aux_heads=aux_heads),
        False,
        {torch_names.released(k): v for k, v in arrays.items()},
        tuple(ignored),
        tuple(notes),
    )


def _deeplab(arrays, ignored, notes) -> Recognised:
    width = len(arrays["conv1.weight"])
    options = {"width": width, "blocks": _blocks(arrays)}
    if "layer5.conv2d_list.0.0.weight" in arrays:
        options |= {"head": "proda", "bn_pretrain": "bn_pretrain.weight" in arrays}
        classes = len(arrays["layer5.head.1.weight"])
        heads = "head proda"
        if options["bn_pretrain"]:
            heads += ", bn_pretrain"
    else:
        if not any(k.startswith("layer6.") for k in arrays):
            # Single-level networks call the head on stage 4 layer5.
            if arrays["layer5.conv2d_list.0.weight"].shape[1] != 32 * width:
                raise ValueError("layer5 is not on stage 4")
            arrays = {re.sub("^layer5", "layer6", k): v for k, v in arrays.items()}
            notes = [*notes, "layer5 renamed to layer6, the head on stage 4"]
        options |= {
            "head": "sum4",
            "aux_heads": "layer5.conv2d_list.0.weight" in arrays,
        }
        classes = len(arrays["layer6.conv2d_list.0.weight"])
        heads = "head sum4 or sum2" + (", aux_heads" if options["aux_heads"] else "")
        notes = [
            *notes,
            "sum4 and sum2 have the same arrays: model.head='sum4' for ADVENT, BDL, "
            "FDA; 'sum2' for AdaptSegNet, DACS, MaxSquare",
        ]
    return Recognised(
        f"DeepLabV2, {heads}: width {width}, {classes} classes",
        models.build("deeplabv2", num_classes=classes, **options),
        False,
        arrays,
        tuple(ignored),
        tuple(notes),
    )


def _blocks(arrays) -> tuple[int, ...]:
    """Blocks of the four stages."""
    found = {m.groups() for k in arrays if (m := re.match(r"layer(\d)\.(\d+)\.", k))}
    return tuple(sum(stage == str(i) for stage, _ in found) for i in range(1, 5))
