"""Write data sets as ArrayRecord files, once, for fast random access by many readers.

    python -m tufl_jax.prepare --dataset gta5 --root FOLDER --data_dir PREPARED
    python -m tufl_jax.prepare --dataset crosscity --city Rio --root FOLDER \\
        --data_dir PREPARED
    python -m tufl_jax.prepare --config configs/own.py --data_dir PREPARED

FOLDER holds the official archives (.zip) or what they unpack to; docs/data.md has the
trees. Every file is decoded once, and the first that cannot be is named. A killed run
is continued by the same command, and gives the same bytes. Train from the result with
--config.data.source.format=prepared --config.data.source.root=PREPARED (and target,
eval). With --config, every folder that its trainings read is prepared, each below
PREPARED/<name of the folder>.
"""

import functools
import pathlib
from collections.abc import Iterator

from absl import app, flags
from ml_collections import ConfigDict

from tufl_jax import cli, labels
from tufl_jax import config as config_lib
from tufl_jax.data import builders, layouts, prepared
from tufl_jax.errors import UserError

CONFIG = cli.define_config()
DATASET = flags.DEFINE_string(
    "dataset", None, f"One of {', '.join(sorted(set(layouts.LAYOUTS) - {'folder'}))}."
)
ROOT = flags.DEFINE_string("root", None, "Folder with the archives or their content.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Gets the prepared data sets.")
SPLIT = flags.DEFINE_list("split", None, "Splits; default: those that papers use.")
CITY = flags.DEFINE_string("city", "", "Of crosscity.")
ANNOTATION = flags.DEFINE_string("annotation", "gtFine", "Of cityscapes.")
BEAM = flags.DEFINE_list(
    "beam",
    None,
    "Write with Apache Beam instead of threads, with these options of its pipeline, "
    "such as --runner=FlinkRunner,--flink_master=HOST:8081.",
)

DEFAULT_SPLITS = {
    "cityscapes": ("train", "val"),
    "gta5": ("all",),
    "synthia": ("all",),
    "crosscity": ("train", "test"),
}


def main(_) -> None:
    """Prepare what the flags say and print where it is."""
    if (CONFIG.value is None) == (DATASET.value is None):
        raise UserError("give either --dataset, or --config for all that it reads")
    if not DATA_DIR.value:
        raise UserError("give --data_dir, the folder for the prepared data sets")
    jobs = of_flags() if CONFIG.value is None else of_config(CONFIG.value)
    try:
        for spec, data_dir in jobs:
            folder = str(data_dir)
            print(
                builders.prepare(spec, root=spec.root, data_dir=folder, beam=BEAM.value)
            )
    except KeyboardInterrupt:
        raise UserError("stopped; the same command continues") from None


def of_flags() -> Iterator[tuple[ConfigDict, str]]:
    """The splits of --dataset, and where they go."""
    if DATASET.value not in DEFAULT_SPLITS:
        names = ", ".join(DEFAULT_SPLITS)
        raise UserError(f"--dataset {DATASET.value}: choose one of {names}")
    if not ROOT.value:
        raise UserError("give --root, the folder of the archives or their content")
    for split in SPLIT.value or DEFAULT_SPLITS[DATASET.value]:
        spec = config_lib.base().data.eval
        spec.update(name=DATASET.value, root=ROOT.value, split=split)
        spec.update(city=CITY.value, annotation=ANNOTATION.value)
        yield spec, DATA_DIR.value


def of_config(config: ConfigDict) -> list[tuple[ConfigDict, pathlib.Path]]:
    """The folders that a config's trainings read, each once, and where they go."""
    runs = [config_lib.run_config(config, name) for name in config.recipe] or [config]
    jobs = {}
    for run in runs:
        for domain in ("source", "target", "eval"):
            spec = run.data[domain]
            if spec.name not in builders.BUILDERS:
                continue
            spec.root = config_lib.expand(spec.root, key=f"data.{domain}.root")
            layouts.of_spec(spec, labels.of_config(run))  # raises for impossible ids
            data_dir = pathlib.Path(DATA_DIR.value, pathlib.Path(spec.root).name)
            job = jobs.setdefault(prepared.folder(data_dir, spec), (spec, data_dir))
            for key in ("root", "images", "labels"):
                if job[0][key] != spec[key]:
                    raise UserError(
                        f"data.{domain}.{key} is '{spec[key]}' and elsewhere "
                        f"'{job[0][key]}', with one place for both in {data_dir}: "
                        "prepare them apart, with two configs and --data_dir"
                    )
    if not jobs:
        raise UserError("this config reads no data set from folders")
    return list(jobs.values())


if __name__ == "__main__":
    parse = functools.partial(cli.parse_flags, config_required=False)
    app.run(cli.guarded(main), flags_parser=parse)
