"""Train from a config file: one training, or a recipe of several.

    python -m tufl_jax.main --config configs/demo.py
    python -m tufl_jax.main --config configs/camvid_stage1.py --workdir runs/s1
    python -m tufl_jax.main --config configs/demo.py --config.seed=1

The same command continues a run that was stopped. Any setting of the schema
(tufl_jax/config.py) can be changed with --config.KEY=VALUE.
"""

import jax
from absl import app, flags

from tufl_jax import cli, recipe, train

WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<name of the config file>."
)
CONFIG = cli.define_config()


def main(_) -> None:
    """Train what --config says and print the table."""
    workdir = WORKDIR.value or f"runs/{cli.config_name()}"
    if CONFIG.value.recipe:
        results = recipe.run_recipe(CONFIG.value, workdir)
        pictures = f"\n\npictures: {workdir}/contact_sheet.png"
    else:
        results = {CONFIG.value.stage: train.train(CONFIG.value, workdir)}
        pictures = ""
    if jax.process_index() == 0:
        print(recipe.results_table(results) + pictures)


if __name__ == "__main__":
    app.run(cli.guarded(main), flags_parser=cli.parse_flags)
