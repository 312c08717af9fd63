"""Evaluate a finished or running training on the labelled set of its config.

    python -m tufl_jax.evaluate --config configs/camvid_stage2.py --workdir runs/s2

Reads the newest good checkpoint of the workdir, prints IoU per class and writes
`evaluation.json` there. Another set is a setting away:
--config.data.eval.root=FOLDER --output evaluation_night.json
"""

import pathlib

from absl import app, flags, logging

from tufl_jax import cli, evaluation, recipe, startup
from tufl_jax.errors import UserError

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to evaluate.")
OUTPUT = flags.DEFINE_string("output", "evaluation.json", "File in the workdir.")


def main(_) -> None:
    """Evaluate --workdir with --config and print the table."""
    config = CONFIG.value
    if WORKDIR.value is None:
        raise UserError("no --workdir given: the folder of the run to evaluate")
    if config.recipe:
        raise UserError(
            "this config is a recipe; evaluate one of its runs with that run's config"
        )
    workdir = pathlib.Path(WORKDIR.value)
    source = startup.open_dataset(config, "eval", labelled=True)
    model = startup.build_model(config)
    step, variables = startup.load_run(config, model, "workdir", workdir)
    logging.info("evaluate step %d of %s on %d images", step, workdir, len(source))
    result = evaluation.Evaluator(config, model, source)(variables).as_json(
        step=step, checkpoint=f"checkpoints/{step}"
    )
    evaluation.write_json(workdir / OUTPUT.value, result)
    print(recipe.results_table({workdir.name: result}))


if __name__ == "__main__":
    app.run(cli.guarded(main), flags_parser=cli.parse_flags)
