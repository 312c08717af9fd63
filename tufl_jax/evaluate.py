"""Evaluate a finished or running training on the labelled set of its config.

    python -m tufl_jax.evaluate --config configs/camvid_stage2.py --workdir runs/s2
    python -m tufl_jax.evaluate --config configs/demo.py --run stage2
    python -m tufl_jax.evaluate --config configs/camvid_stage2.py --weights tufl.pth

Reads the newest good checkpoint of the workdir (for a run of a recipe, its folder in
the recipe's), prints IoU per class and writes `evaluation.json` there. Another set is a
setting away, and then needs a name of its own:
--config.data.eval.root=FOLDER --output evaluation_night.json

With --weights the network comes from a file and no workdir is needed; the result is
printed, and written where --output says.
"""

import json
import pathlib

from absl import app, flags, logging
from ml_collections import ConfigDict

from tufl_jax import cli, evaluation, recipe, startup, validation
from tufl_jax import config as config_lib
from tufl_jax.errors import UserError
from tufl_jax.models import pretrained

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/<name of the config file>."
)
RUN = flags.DEFINE_string("run", None, "Of a recipe: the run to evaluate.")
OUTPUT = flags.DEFINE_string("output", "evaluation.json", "File in the workdir.")
WEIGHTS = flags.DEFINE_string(
    "weights", None, "Evaluate this file (.pth, .npz, .safetensors) instead of a run."
)


def main(_) -> None:
    """Evaluate --workdir with --config and print the table."""
    config = CONFIG.value
    if WEIGHTS.value:
        if WORKDIR.value or (RUN.value and not config.recipe):
            raise UserError("--weights takes no --workdir, and --run only of a recipe")
        if RUN.value:
            config = config_lib.run_config(config, RUN.value)
        result = evaluate_weights(config, pathlib.Path(WEIGHTS.value))
        if flags.FLAGS["output"].present:
            evaluation.write_json(pathlib.Path(OUTPUT.value), result)
        print(recipe.results_table({pathlib.Path(WEIGHTS.value).name: result}))
        return
    workdir = pathlib.Path(WORKDIR.value or f"runs/{cli.config_name()}")
    if config.recipe:
        if RUN.value not in config.recipe:
            names = ", ".join(config.recipe)
            raise UserError(f"this config is a recipe: say --run, one of {names}")
        config = recipe.resolve(config, RUN.value, workdir)
        workdir = workdir / RUN.value
    validation.validate(config)
    check_settings(config, workdir)
    source = startup.open_dataset(config, "eval", labelled=True)
    model = startup.build_model(config)
    step, variables = startup.load_run(config, model, "workdir", workdir)
    logging.info("evaluate step %d of %s on %d images", step, workdir, len(source))
    result = evaluation.Evaluator(config, model, source)(variables).as_json(
        step=step, checkpoint=f"checkpoints/{step}"
    )
    evaluation.write_json(workdir / OUTPUT.value, result)
    print(recipe.results_table({workdir.name: result}))


def evaluate_weights(config: ConfigDict, path: pathlib.Path) -> dict:
    """The content of evaluation.json for the network of a weights file.

    Raises:
      UserError: the file does not hold the whole network of config.model.
    """
    validation.validate(config)
    model = startup.build_model(config)
    variables = pretrained.load_network(str(path), model)
    source = startup.open_dataset(config, "eval", labelled=True)
    logging.info("evaluate %s on %d images", path, len(source))
    evaluator = evaluation.Evaluator(config, model, source)
    return evaluator(variables).as_json(step=0, checkpoint=str(path))


def check_settings(config: ConfigDict, workdir: pathlib.Path) -> None:
    """Refuse another network, and other settings that would overwrite the run's result.

    Raises:
      UserError: as it says.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise UserError(f"no config.json in {workdir}: it is not the folder of a run")
    changed = config_lib.differences(json.loads(path.read_text()), config)
    network = [x for x in changed if x.startswith(("model.", "num_classes"))]
    if network:
        raise UserError(f"{workdir} holds another network: {'; '.join(network)}")
    other = [x for x in changed if x.startswith(("eval.", "data.eval."))]
    if other and OUTPUT.value == "evaluation.json":
        raise UserError(
            f"not as the run was evaluated ({'; '.join(other)}): give the result a "
            "name of its own with --output"
        )


if __name__ == "__main__":
    app.run(cli.guarded(main), flags_parser=cli.parse_flags)
