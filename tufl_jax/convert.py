"""Converts weights: python -m tufl_jax.convert resnet18.pth resnet18.npz

Reads .pth / .pt (without torch, and without executing anything), .npz and .safetensors;
writes .npz or .safetensors. Both hold the one stored form of this project: arrays
under their torch names in torch layout. So a converted file can be given to
`config.init.pretrained`, and a .safetensors file goes back to torch with
`model.load_state_dict(safetensors.torch.load_file(path))`.

Prints the SHA-256 of the input, what it was recognised as and what was left out.
A problem is one line on stderr and exit code 1, and nothing is written.
"""

import argparse
import hashlib
import os
import re
import sys

import numpy as np

from tufl_jax.errors import UserError
from tufl_jax.models import pretrained, torch_names
from tufl_jax.models.weight_files import read_weights

# (bottleneck blocks, blocks in stage 3) -> name.
_RESNETS = {
    (False, 2): "torchvision resnet18",
    (False, 6): "torchvision resnet34",
    (True, 6): "torchvision resnet50",
    (True, 23): "torchvision resnet101",
}
_KEYS = ("conv1.weight", "layer1.0.conv1.weight", "cp.resnet.conv1.weight")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tufl_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", help=".pth, .pt, .npz or .safetensors")
    parser.add_argument("output", help=".npz or .safetensors")
    parser.add_argument("--sha256", default="", help="what the input must hash to")
    parser.add_argument(
        "--abs-scale",
        action="store_true",
        help="weights trained with in-place ABN: norm scales become |scale| + 1e-5 "
        "(do it once only)",
    )
    args = parser.parse_args(argv)
    try:
        for line in convert(
            args.input, args.output, sha256=args.sha256, abs_scale=args.abs_scale
        ):
            print(line)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def convert(
    source: str, target: str, *, sha256: str = "", abs_scale: bool = False
) -> list[str]:
    """Converts one file and returns the report, one line each.

    Args:
      source: file that `read_weights` reads.
      target: .npz or .safetensors; replaced atomically.
      sha256: hexadecimal digest to check before reading; '' for none.
      abs_scale: as in `pretrained.from_torch`.

    Raises:
      UserError: nothing has been written then.
    """
    if os.path.splitext(target)[1] not in (".npz", ".safetensors"):
        raise UserError(f"{target}: can write .npz and .safetensors only")
    if not os.path.isfile(source):
        raise UserError(f"{source}: no such file")
    with open(source, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and digest != sha256.lower():
        raise UserError(f"{source}: SHA-256 is {digest}, expected {sha256}")
    arrays = read_weights(source)
    total = len(arrays)
    arrays, prefix = torch_names.strip_prefix(arrays, _KEYS)
    dropped = [k for k in arrays if k.endswith("num_batches_tracked")]
    arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items() if k not in dropped}
    lines = [
        f"sha256      {digest}",
        f"recognised  {recognise(arrays)}",
        f"arrays      {total} read, {len(arrays)} written",
    ]
    if prefix:
        lines.append(f"stripped    prefix '{prefix}'")
    if dropped:
        lines.append(f"left out    {len(dropped)} num_batches_tracked")
    if abs_scale:
        scales = _norm_scales(arrays)
        for name in scales:
            arrays[name] = np.abs(arrays[name]) + np.float32(1e-5)
        lines.append(f"changed     {len(scales)} norm scales to |scale| + 1e-5")
    _write(target, arrays)
    return [*lines, f"written     {target}"]


def recognise(arrays: dict[str, np.ndarray]) -> str:
    """Names the network that the arrays (without prefix) belong to.

    Raises UserError for a network that no program of this project can use.
    """
    if pretrained.is_backbone(arrays):
        blocks = {re.match(r"layer3\.(\d+)\.", name) for name in arrays} - {None}
        bottleneck = "layer1.0.conv3.weight" in arrays
        kind = (bottleneck, len({match[1] for match in blocks}))
        if kind in _RESNETS:
            return _RESNETS[kind]
    if "cp.resnet.conv1.weight" in arrays and "conv_out.conv_out.weight" in arrays:
        width = arrays["cp.resnet.conv1.weight"].shape[0]
        classes = arrays["conv_out.conv_out.weight"].shape[0]
        heads = 3 if "conv_out16.conv_out.weight" in arrays else 1
        return f"BiSeNet-ResNet18: width {width}, {classes} classes, {heads} heads"
    names = ", ".join(list(arrays)[:3])
    raise UserError(
        f"not a network this project knows (first arrays: {names}); it knows "
        f"{', '.join(_RESNETS.values())} and BiSeNet-ResNet18"
    )


def _norm_scales(arrays) -> list[str]:
    suffix = "running_mean"
    means = [k.removesuffix(suffix) for k in arrays if k.endswith(suffix)]
    return [k + "weight" for k in means if k + "weight" in arrays]


def _write(path, arrays):
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            if path.endswith(".npz"):
                np.savez(file, **arrays)
            else:
                try:
                    from safetensors.numpy import save
                except ImportError:
                    raise UserError(
                        f"{path}: writing .safetensors needs "
                        "pip install 'tufl-jax[convert]'"
                    ) from None

                file.write(save(arrays))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror})") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


if __name__ == "__main__":
    sys.exit(main())
