"""The one training loop."""

import contextlib
import dataclasses
import pathlib
import resource
import signal
import threading
import time

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from tufl_jax import config as config_lib
from tufl_jax import (
    evaluation,
    labels,
    pictures,
    samples,
    startup,
    steps,
    validation,
)
from tufl_jax import workdir as workdirs
from tufl_jax.checkpoint import Checkpoints
from tufl_jax.errors import UserError
from tufl_jax.steps import step as step_lib
from tufl_jax.steps.common import Context
from tufl_jax.writer import Writer


class Preempted(Exception):
    """The process was asked to stop and has saved its state."""


def train(config: ConfigDict, workdir: str | pathlib.Path) -> dict:
    """Run one training to its end and evaluate it; continue it if it was begun.

    Args:
      config: a full config without recipe.
      workdir: gets config.json, checkpoints/, metrics.jsonl, TensorBoard events and
        at the end evaluation.json; in stage cyclegan samples.png too.

    Returns:
      The content of evaluation.json.

    Raises:
      UserError: anything the user can mend.
      Preempted: after SIGTERM or SIGINT, when the state is saved.
    """
    validation.validate(config)
    workdir = pathlib.Path(workdir)
    workdirs.check_workdir(config, workdir)
    done = workdirs.finished(config, workdir)
    if done:
        logging.info("%s: finished at step %d, nothing to do", workdir, done["step"])
        return done
    data = startup.open_data(config)
    model = startup.build_model(config)
    optimizer, schedule = startup.build_optimizer(config, model)
    mesh = step_lib.make_mesh(startup.usable_devices(config))
    with contextlib.ExitStack() as open_things:
        open_things.enter_context(workdirs.claimed(config, workdir))
        donors = startup.open_donors(config, data, workdir)
        checkpoints = Checkpoints(workdir, keep=config.train.keep_checkpoints)
        open_things.callback(checkpoints.close)
        state = startup.start_state(config, model, optimizer, checkpoints, donors, mesh)
        first = int(jax.device_get(state.step))
        writer = Writer(workdir, just_logging=jax.process_index() > 0)
        open_things.callback(writer.close)
        writer.rewind(first)
        writer.write_hparams(dict(config_lib.flatten(config_lib.as_json(config))))
        batches = startup.open_batches(config, data, donors, first)
        open_things.callback(batches.close)
        stage = steps.STAGES[config.stage]
        loop = Loop(
            config=config,
            workdir=workdir,
            mesh=mesh,
            step=step_lib.make_train_step(
                stage.loss_fn,
                Context(config, model, teacher=startup.build_teacher(config, model)),
                optimizer,
                mesh,
            ),
            schedule=schedule,
            evaluator=open_evaluator(config, model, data, workdir),
            checkpoints=checkpoints,
            writer=writer,
        )
        return loop.run(state, batches)


def open_evaluator(config: ConfigDict, model, data: dict, workdir: pathlib.Path):
    """What judges the network: called with its variables, it gives an Evaluation."""
    if config.stage == "cyclegan":
        return samples.Samples(config, model, data, workdir)
    return evaluation.Evaluator(config, model, data["eval"])


@dataclasses.dataclass
class Loop:
    """Steps, and what happens between them; `run` is the whole of it."""

    config: ConfigDict
    workdir: pathlib.Path
    mesh: Mesh
    step: object
    schedule: object
    evaluator: evaluation.Evaluator | samples.Samples
    checkpoints: Checkpoints
    writer: Writer

    def run(self, state, batches) -> dict:
        """Train from the state's step to the last and evaluate.

        Per step: log, evaluate, save, in this order, so that whatever a checkpoint
        covers is on disk before it.
        """
        every = self.config.train
        n = int(jax.device_get(state.step))
        clock = Clock(self.config, n)
        result = None
        with StopRequest() as stop:
            while n < every.num_steps:
                batch = step_lib.put_batch(next(batches), self.mesh)
                # Between log steps nothing is read back: the step never waits.
                with jax.transfer_guard("disallow"):
                    state, images = self.step(state, batch)
                n += 1
                last = n == every.num_steps
                paused = clock.started is None  # the first step: compilation
                if n % every.log_every == 0 or last:
                    scalars = self.log(state, n, clock)
                    if last or (every.eval_every and n % every.eval_every == 0):
                        result = self.evaluate(state, n, scalars)
                        paused = True
                    self.writer.write_scalars(n, scalars, clock.performance or None)
                elif every.eval_every and n % every.eval_every == 0:
                    scalars = {}
                    result = self.evaluate(state, n, scalars)
                    self.writer.write_scalars(n, scalars, None)
                    paused = True
                if every.summary_every and (n % every.summary_every == 0 or n == 1):
                    if jax.process_index() == 0:
                        shown = summary_images(images, self.config)
                        self.writer.write_images(n, shown)
                    paused = True
                stop.agree(n)
                if n % every.checkpoint_every == 0 or last or stop.requested:
                    self.save(state)
                    paused = True
                if paused:
                    jax.block_until_ready(state.step)
                    clock.start(n)
                if stop.requested:
                    self.checkpoints.wait()
                    raise Preempted(f"stopped by {stop.requested} at step {n}, saved")
        if result is None:  # the last checkpoint was there, evaluation.json not
            result = self.evaluate(state, n, {})
        self.checkpoints.wait()
        return result

    def log(self, state, n: int, clock: "Clock") -> dict:
        """Scalars of the window that ends at step n; UserError if one is not finite."""
        window = (n - 1) % self.config.train.log_every + 1
        sums, alpha, bad = jax.device_get(
            (state.metrics, state.thresholds, state.bad_step)
        )
        scalars = {name: float(total) / window for name, total in sums.items()}
        self.check_finite(scalars, int(bad))
        names = labels.of_config(self.config).names
        if self.config.stage in validation.ADAPTATION:
            for name, value in zip(names, alpha, strict=True):
                scalars[f"threshold/{name}"] = float(value)
        scalars["learning_rate"] = float(jax.device_get(self.schedule(n - 1)))
        clock.tick(n)
        shown = [f"{k} {scalars[k]:.4f}" for k in sums if k in scalars]
        logging.info(
            "%s step %d/%d  %s  %s",
            self.config.stage,
            n,
            self.config.train.num_steps,
            "  ".join(shown),
            clock.report(n),
        )
        return scalars

    def check_finite(self, scalars: dict, bad_step: int) -> None:
        """Stop a run whose loss has become NaN or infinite."""
        bad = [name for name, value in scalars.items() if not np.isfinite(value)]
        if bad or bad_step >= 0:
            raise UserError(
                f"the loss is not finite since step {bad_step} "
                f"({', '.join(f'{k} {v}' for k, v in scalars.items())}); nothing was "
                "saved after it: try a lower config.optim.learning_rate in a new "
                "--workdir"
            )

    def evaluate(self, state, n: int, scalars: dict) -> dict:
        """Evaluate, add the results to `scalars`, write evaluation.json at the end."""
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        found = self.evaluator(variables)
        scalars |= {f"eval/{name}": value for name, value in found.scalars().items()}
        logging.info("%s step %d: %s", self.config.stage, n, found.headline())
        result = found.as_json(step=n, checkpoint=f"checkpoints/{n}")
        if n == self.config.train.num_steps and jax.process_index() == 0:
            result |= found.best(self.workdir / "metrics.jsonl", n)
            evaluation.write_json(self.workdir / "evaluation.json", result)
        return result

    def save(self, state) -> None:
        """Save the state unless its loss went bad since the last log."""
        bad = int(jax.device_get(state.bad_step))
        if bad >= 0:
            self.check_finite(
                {k: float(v) for k, v in jax.device_get(state.metrics).items()}, bad
            )
        self.writer.flush()
        self.checkpoints.save(state)


class Clock:
    """Throughput and time left; compiling, evaluating and saving do not count."""

    def __init__(self, config: ConfigDict, step: int):
        domains = config_lib.domains(config)
        self._images = sum(config.data[domain].batch_size for domain in domains)
        self._total = config.train.num_steps
        self.started: float | None = None
        self._step = step
        self.performance: dict[str, float] = {}

    def start(self, step: int) -> None:
        """Begin a window after `step`."""
        self.started = time.monotonic()
        self._step = step

    def tick(self, step: int) -> None:
        """End the window at `step` (its device work is done) and begin the next."""
        if self.started is None or step == self._step:
            return
        seconds = time.monotonic() - self.started
        steps_done = step - self._step
        self._seconds_per_step = seconds / steps_done
        self.performance = {
            "images_per_second": self._images * steps_done / max(seconds, 1e-9),
            "seconds_per_step": self._seconds_per_step,
            **memory(),
        }
        self.start(step)

    def report(self, step: int) -> str:
        """Images a second and time left, once a window has ended."""
        if not self.performance:
            return ""
        speed = self.performance["images_per_second"]
        return f"{speed:.1f} images/s  ETA {self._eta(step)}"

    def _eta(self, step: int) -> str:
        left = int((self._total - step) * self._seconds_per_step)
        hours, minutes = left // 3600, left // 60 % 60
        return (
            f"{hours}:{minutes:02d}:{left % 60:02d}"
            if hours
            else (f"{minutes}:{left % 60:02d}")
        )


def memory() -> dict[str, float]:
    """Peak memory in GiB: of the process, and of the first device where it tells."""
    peak = {"host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        peak["device_peak_gib"] = stats["peak_bytes_in_use"] / 2**30
    return peak


class StopRequest:
    """Notes SIGTERM or SIGINT instead of dying, so that the loop can save first.

    A second signal acts as usual. Does nothing outside the main thread. With several
    processes SIGTERM to any of them is jax's to note (SIGINT acts as usual), and all of
    them stop after the same step.
    """

    def __init__(self):
        self.requested = ""
        self._previous = {}

    def __enter__(self):
        main_thread = threading.current_thread() is threading.main_thread()
        if main_thread and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def agree(self, step: int) -> None:
        """Call after every step: the same answer on all processes."""
        if jax.process_count() > 1 and not self.requested:
            if multihost_utils.reached_preemption_sync_point(step):
                self.requested = "SIGTERM"

    def _note(self, number, frame):
        self.requested = signal.Signals(number).name
        logging.info("%s: saving at the end of this step", self.requested)
        self._restore()

    def _restore(self):
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __exit__(self, *exc):
        self._restore()


def summary_images(images: dict, config: ConfigDict) -> dict[str, np.ndarray]:
    """The step's pictures as u8[N, H, W, 3], one of each device of this process."""
    shown = {}
    classes = labels.of_config(config)
    for name, array in images.items():
        array = np.concatenate([shard.data for shard in array.addressable_shards])
        kind = name.rsplit("_", 1)[-1].rsplit("/", 1)[-1]
        if kind in ("label", "prediction"):
            colour = [classes.colorize(x) for x in array]
        elif kind == "entropy":
            colour = [pictures.color_map(x) for x in array]
        elif kind == "mask":
            colour = [
                np.repeat(x[..., None], 3, -1).astype(np.uint8) * 255 for x in array
            ]
        else:
            colour = np.clip(array, 0, 255).astype(np.uint8)
        shown[name] = np.stack(colour)
    return shown
