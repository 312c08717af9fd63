"""Translate the source images of a config to the style of its target.

    python -m tufl_jax.translate --config configs/cyclegan_streets.py
    python -m tufl_jax.translate --config configs/cyclegan_gta5.py --workdir runs/g
    python -m tufl_jax.translate --config configs/demo.py --method fda --output FOLDER

Writes one PNG for each image, of its name and size, to --output (default: `translated`
in the workdir), beside it how they were made (.json) and a contact sheet (.png). Labels
are not copied: a training takes the images in place of the data set's own with
--config.data.source.translated=FOLDER, and its labels as they are.

'cyclegan' needs a trained run of stage cyclegan in --workdir (for a run of a recipe,
the recipe's), of which the newest checkpoint is used; 'fda' (Fourier domain adaptation)
needs none. Large images go in tiles: --config.style.tile='(512, 1024)'. The same
command continues one that was stopped.
"""

import pathlib

from absl import app, flags
from ml_collections import ConfigDict

from tufl_jax import cli, recipe, translation, validation
from tufl_jax import config as config_lib
from tufl_jax import workdir as workdirs
from tufl_jax.errors import UserError

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<name of the config file>."
)
RUN = flags.DEFINE_string("run", None, "Of a recipe: its run of stage cyclegan.")
METHOD = flags.DEFINE_enum("method", "cyclegan", ["cyclegan", "fda"], "See above.")
BETA = flags.DEFINE_float("beta", 0.01, "fda: share of the spectrum.", 0.0, 0.5)
OUTPUT = flags.DEFINE_string("output", None, "Folder for the images.")


def main(_) -> None:
    """Translate what --config says."""
    config, workdir = of_recipe(CONFIG.value)
    validation.validate(config)
    by_network = METHOD.value == "cyclegan"
    if by_network and config.stage != "cyclegan":
        raise UserError(
            f"this config is of stage '{config.stage}': --method cyclegan needs one of "
            "stage cyclegan, such as configs/cyclegan_streets.py; or use --method fda"
        )
    if not by_network and not OUTPUT.value:
        raise UserError("--method fda needs --output FOLDER")
    if by_network:
        workdirs.check_style(config, workdir)
    output = pathlib.Path(OUTPUT.value or workdir / translation.FOLDER)
    beta = None if by_network else BETA.value
    try:
        translation.translate_source(config, workdir, output, beta=beta)
    except KeyboardInterrupt:
        raise UserError("stopped; the same command continues") from None
    print(f"use it with --config.data.source.translated={output}")


def of_recipe(config: ConfigDict) -> tuple[ConfigDict, pathlib.Path]:
    """The config that is meant and the folder of its run."""
    workdir = pathlib.Path(WORKDIR.value or f"runs/{cli.config_name()}")
    if not config.recipe or (METHOD.value == "fda" and not RUN.value):
        run = ConfigDict(config.to_dict())
        run.recipe = ()
        return run, workdir
    names = [
        name
        for name in config.recipe
        if config_lib.run_config(config, name).stage == "cyclegan"
    ]
    name = RUN.value or next(iter(names), None)
    if name not in config.recipe:
        raise UserError(
            f"this recipe has no run '{name}': say --run, one of "
            f"{', '.join(config.recipe)}"
            if name
            else "no run of this recipe is of stage cyclegan: use --method fda"
        )
    return recipe.resolve(config, name, workdir), workdir / name


if __name__ == "__main__":
    app.run(cli.guarded(main), flags_parser=cli.parse_flags)
