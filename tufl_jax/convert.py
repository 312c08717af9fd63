"""Converts weights: python -m tufl_jax.convert resnet18.pth resnet18.npz

Reads .pth / .pt (without torch, and without executing anything), .npz and .safetensors;
writes .npz, .safetensors or .pth. All hold the one stored form of this project: arrays
under their torch names in torch layout. So a converted file can be given to
`config.init.pretrained` and to `evaluate --weights`, and a .pth file goes to torch with
`model.load_state_dict(torch.load(path, weights_only=True))`.

    python -m tufl_jax.convert --workdir runs/s2 tufl.pth

writes the network of a run's newest good checkpoint.

Prints the SHA-256 of the input, what it was recognised as and how its arrays fit that
network. A problem is one line on stderr and exit code 1, and nothing is written.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys

import numpy as np
from absl import logging

from tufl_jax import config as config_lib
from tufl_jax import startup
from tufl_jax.errors import UserError
from tufl_jax.models import pretrained, released
from tufl_jax.models.weight_files import read_weights
from tufl_jax.models.weight_writers import check_suffix, write_weights


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tufl_jax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input", nargs="?", help=".pth, .pt, .npz or .safetensors; not with --workdir"
    )
    parser.add_argument("output", help=".npz, .safetensors or .pth")
    parser.add_argument("--workdir", help="folder of a run, instead of the input")
    parser.add_argument("--sha256", default="", help="what the input must hash to")
    parser.add_argument(
        "--abs-scale",
        action="store_true",
        help="weights trained with in-place ABN: norm scales become |scale| + 1e-5 "
        "(do it once only)",
    )
    args = parser.parse_args(argv)
    if (args.input is None) == (args.workdir is None):
        parser.error("give an input file or --workdir")
    if args.workdir and (args.sha256 or args.abs_scale):
        parser.error("--sha256 and --abs-scale are for files")
    try:
        if args.workdir:
            lines = export(args.workdir, args.output)
        else:
            lines = convert(
                args.input, args.output, sha256=args.sha256, abs_scale=args.abs_scale
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def convert(
    source: str, target: str, *, sha256: str = "", abs_scale: bool = False
) -> list[str]:
    """Converts one file and returns the report, one line each.

    Args:
      source: file that `read_weights` reads.
      target: file that `write_weights` writes; replaced atomically.
      sha256: hexadecimal digest to check before reading; '' for none.
      abs_scale: as in `pretrained.from_torch`.

    Raises:
      UserError: nothing has been written then.
    """
    check_suffix(target)
    if not os.path.isfile(source):
        raise UserError(f"{source}: no such file")
    with open(source, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and digest != sha256.lower():
        raise UserError(f"{source}: SHA-256 is {digest}, expected {sha256}")
    arrays = read_weights(source)
    try:
        known = released.recognise(arrays)
        report = pretrained.compare(known)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    lines = [
        f"sha256      {digest}",
        f"recognised  {known.title}",
        f"loaded      {len(report.loaded)} of {len(arrays)} arrays",
        "missing     0, unexpected 0, of another shape 0",
    ]
    if known.ignored:
        lines.append(f"left out    {len(known.ignored)}: {some(known.ignored)}")
    lines += [f"note        {note}" for note in known.notes]
    out = dict(known.arrays)
    if abs_scale:
        scales = _norm_scales(out)
        for name in scales:
            out[name] = np.abs(out[name]) + np.float32(1e-5)
        lines.append(f"changed     {len(scales)} norm scales to |scale| + 1e-5")
    write_weights(target, out)
    return [*lines, f"written     {target}"]


def export(workdir: str, target: str) -> list[str]:
    """Writes the network of a run's newest good checkpoint; returns the report.

    Raises:
      UserError: nothing has been written then.
    """
    check_suffix(target)
    path = pathlib.Path(workdir) / "config.json"
    if not path.is_file():
        raise UserError(f"no config.json in {workdir}: it is not the folder of a run")
    try:
        saved = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not readable ({error})") from None
    config = config_lib.base()
    for key, value in config_lib.flatten(saved):
        if key.startswith("model.") or key == "num_classes":
            config_lib.set_key(config, key, value)
    model = startup.build_model(config)
    step, variables = startup.load_run(config, model, "--workdir", workdir)
    arrays = pretrained.to_torch(variables, model)
    write_weights(target, arrays)
    return [
        f"network     {config.model.name}, {config.num_classes} classes",
        f"checkpoint  step {step} of {workdir}",
        f"written     {target}, {len(arrays)} arrays",
    ]


def some(names, limit: int = 4) -> str:
    """The first names and how many more there are."""
    more = f", ... {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _norm_scales(arrays) -> list[str]:
    suffix = "running_mean"
    means = [k.removesuffix(suffix) for k in arrays if k.endswith(suffix)]
    return [k + "weight" for k in means if k + "weight" in arrays]


if __name__ == "__main__":
    logging.set_verbosity(logging.ERROR)  # the report says it all
    sys.exit(main())
