"""The evaluator: counts, families, journals and exports."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from tests.configs import tiny_eval
from tufl_jax import (
    config,
    evaluation,
    export,
    labels,
    metrics,
    models,
    recipe,
    startup,
    state,
    steps,
)
from tufl_jax import workdir as workdirs
from tufl_jax.checkpoint import Checkpoints
from tufl_jax.errors import UserError
from tufl_jax.journal import Journal

ROOT = pathlib.Path(__file__).parent.parent
GOLDEN = pathlib.Path(__file__).parent / "golden"
VARIABLES = {"params": {"none": np.float32(0)}, "batch_stats": {}}


class ReadsRed:
    """A network whose class is the value of the red channel."""

    def __init__(self, num_classes):
        self._classes = np.arange(num_classes, dtype=np.float32)

    def apply(self, variables, x, train):
        return (-abs(x[..., :1] * 255 - self._classes) + variables["params"]["none"],)


class Maps:
    """A source made of predictions (as images that ReadsRed reads) and labels."""

    def __init__(self, predictions, truth):
        self._pairs = list(zip(predictions, truth, strict=True))
        self.read = []

    def __len__(self):
        return len(self._pairs)

    def __getitem__(self, index):
        self.read.append(index)
        guess, truth = self._pairs[index]
        item = {"image": np.repeat(guess[..., None], 3, -1), "name": f"a/b_{index}"}
        return item if truth is None else {**item, "label": truth}

    def fingerprint(self):
        return "maps"


def settings(num_classes=19):
    c = config.base()
    c.num_classes = num_classes
    c.model.normalization = "unit"
    return c


def evaluator(source, num_classes=19):
    c = settings(num_classes)
    return evaluation.Evaluator(c, ReadsRed(num_classes), source)


def random_maps(count=13, num_classes=19):
    """Different sizes in no order."""
    rng = np.random.default_rng(5)
    sizes = [(6, 8), (7, 5), (6, 8)]
    guess = [
        rng.integers(0, num_classes, sizes[i % 3]).astype("u1") for i in range(count)
    ]
    truth = [rng.integers(0, 19, x.shape).astype("u1") for x in guess]
    for x in truth:
        x[0] = 255
    return guess, truth


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("eval_confusion_*")), ids=lambda p: p.stem
)
def test_agrees_with_the_benchmark_script(path):
    case = np.load(path)
    num_classes = len(case["iou_cityscapes"])
    ids = np.append(labels.subset(num_classes), [0] * (255 - num_classes) + [255])
    truth = ids.astype(np.uint8)[case["labels"]]
    result = evaluator(Maps(case["predictions"], truth), num_classes)(VARIABLES)
    numbers = result.as_json(step=1, checkpoint="checkpoints/1")
    assert numbers["miou"] == pytest.approx(float(case["miou_cityscapes"]), rel=1e-12)
    values = [np.nan if v is None else v for v in numbers["iou"].values()]
    np.testing.assert_allclose(values, case["iou_cityscapes"], rtol=1e-12)
    assert numbers["label_size"] == [34, 46]


@pytest.mark.parametrize("num_classes", [19, 16, 13])
def test_both_families_of_a_network_of_any_subset(num_classes):
    guess, truth = random_maps(num_classes=num_classes)
    result = evaluator(Maps(guess, truth), num_classes)(VARIABLES)
    own = np.array(labels.subset(num_classes))
    expected = sum(
        metrics.confusion_matrix(own[g].astype(np.uint8), t, 19)
        for g, t in zip(guess, truth, strict=True)
    )
    np.testing.assert_array_equal(result.confusion, expected)
    assert result.confusion.dtype == np.int64 and result.label_size is None
    numbers = result.as_json(step=3, checkpoint="c")
    assert numbers["miou_13_a"] > numbers["miou_13_b"]
    table = recipe.results_table({"run": numbers})
    assert "miou_13_b" in table and "false positives" in table
    assert ("miou_16_a" in table) == (num_classes > 13)


def test_counts_beyond_32_bits():
    counts = np.zeros((19, 19), np.int64)
    counts[0, 0] = 2**31 + 5
    guess, truth = random_maps(2)
    entry = {"size": [6, 8], "counts": counts.tolist()}
    journal = type("Journal", (), {"entries": {0: entry, 1: entry}})
    result = evaluator(Maps(guess, truth))(VARIABLES, journal=journal)
    assert result.confusion[0, 0] == 2 * (2**31 + 5)


def test_nothing_labelled_is_an_error():
    guess, truth = random_maps(3)
    source = Maps(guess, [np.full_like(x, 255) for x in truth])
    with pytest.raises(UserError, match="no labelled pixel"):
        evaluator(source)(VARIABLES)


def test_own_classes_are_judged_by_themselves(tmp_path):
    c = settings(3)
    c.classes.names = ("water", "road", "ice")
    c.data.eval.name = "folder"
    guess, truth = random_maps(3, num_classes=3)
    source = Maps(guess, [x % 3 for x in truth])
    result = evaluation.Evaluator(c, ReadsRed(3), source)(VARIABLES)
    assert result.confusion.shape == (3, 3)
    numbers = result.as_json(step=1, checkpoint="c")
    assert set(numbers["iou"]) == {"water", "road", "ice"} and "miou_13" not in numbers
    export.Exporter(tmp_path, labels.of_config(c))("x", guess[0])
    ids = np.asarray(Image.open(tmp_path / "labelIds" / "x_labelIds.png"))
    np.testing.assert_array_equal(ids, guess[0])


def test_a_stopped_evaluation_continues(tmp_path):
    guess, truth = random_maps()
    expected = evaluator(Maps(guess, truth))(VARIABLES)
    path = tmp_path / "deep" / "journal"
    count = 0

    def keep(name, prediction):
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        journal = Journal(path, "one")
        evaluator(Maps(guess, truth))(VARIABLES, journal=journal, keep=keep)
    journal.close()
    path.write_bytes(path.read_bytes() + b'{"index": 12, "coun')  # torn by a kill
    done = [json.loads(x)["index"] for x in path.read_text().splitlines()[1:-1]]
    assert len(done) == 4
    source = Maps(guess, truth)
    journal = Journal(path, "one")
    result = evaluator(source)(VARIABLES, journal=journal)
    np.testing.assert_array_equal(result.confusion, expected.confusion)
    assert sorted(source.read + done) == list(range(13))
    journal.close()
    again = Maps(guess, truth)
    journal = Journal(path, "one")
    evaluator(again)(VARIABLES, journal=journal)
    assert again.read == []
    journal.close()
    journal = Journal(path, "another")
    assert journal.entries == {}
    journal.remove()
    assert not path.exists()


def test_fingerprint_changes_with_weights_and_protocol():
    source = Maps(*random_maps(1))
    c = settings()
    first = evaluation.Evaluator(c, None, source).fingerprint(VARIABLES)
    assert evaluation.Evaluator(c, None, source).fingerprint(VARIABLES) == first
    other = {"params": {"none": np.float32(1)}, "batch_stats": {}}
    assert evaluation.Evaluator(c, None, source).fingerprint(other) != first
    c.eval.flip = True
    assert evaluation.Evaluator(c, None, source).fingerprint(VARIABLES) != first


def test_export_writes_label_ids_at_the_images_size(tmp_path):
    guess, _ = random_maps(4, num_classes=16)
    source = Maps(guess, [None] * 4)
    journal = Journal(tmp_path / "journal", "x")
    keep = export.Exporter(tmp_path, labels.cityscapes(16))
    evaluator(source, 16).export(VARIABLES, journal=journal, keep=keep)
    ids = {name: raw for raw, name in labels.CITYSCAPES_IDS.items() if name}
    for i, expected in enumerate(guess):
        raw = Image.open(tmp_path / "labelIds" / "a" / f"b_{i}_labelIds.png")
        assert raw.mode == "L"
        names = np.array(labels.class_names(16))[expected]
        np.testing.assert_array_equal(raw, np.vectorize(ids.get)(names))
        colour = Image.open(tmp_path / "colour" / "a" / f"b_{i}.png").convert("RGB")
        shown = labels.cityscapes(16).colorize(expected)
        np.testing.assert_array_equal(colour, shown)


def test_best_step_of_a_log(tmp_path):
    path = tmp_path / "metrics.jsonl"
    last = {"step": 9, "miou": 0.3}
    assert evaluation.best_step(path, last) == last
    rows = [(3, 0.4), (6, 0.2), (9, 0.9)]
    text = "".join(f'{{"step": {s}, "eval/miou": {m}}}\n' for s, m in rows)
    path.write_text('{"step": 1, "loss": 2}\n' + text + '{"step": 12, "ev')
    assert evaluation.best_step(path, last) == {"step": 3, "miou": 0.4}
    assert evaluation.best_step(path, {"step": 9, "miou": 0.4})["step"] == 9


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """The workdir of a run with checkpoints at 2 (the better one) and 4."""
    workdir = tmp_path_factory.mktemp("run")
    c = tiny_eval.get_config()
    model = startup.build_model(c)
    optimizer, _ = startup.build_optimizer(c, model)
    checkpoints = Checkpoints(workdir)
    for step in (2, 4):
        trained = state.create(
            models.init(model, jax.random.key(step)),
            optimizer,
            num_classes=19,
            initial_threshold=0.8,
            metrics=steps.STAGES["source"].METRICS,
        )
        checkpoints.save(trained.replace(step=np.int32(step)))
        checkpoints.wait()
    checkpoints.close()
    evaluation.write_json(workdir / "config.json", config.as_json(c))
    (workdir / "metrics.jsonl").write_text('{"step": 2, "eval/miou": 0.75}\n')
    return workdir


def start(*arguments):
    arguments = [
        "--config=tests/configs/tiny_eval.py",
        *map(str, arguments),
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "tufl_jax.evaluate", *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(*arguments):
    process = start(*arguments)
    stdout, stderr = process.communicate(timeout=1200)
    return process.returncode, stdout, stderr


def test_killed_in_the_middle_and_started_again(run_folder, tmp_path):
    """The export and the numbers are those of an evaluation that was left alone."""
    workdir = f"--workdir={run_folder}"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    code, stdout, stderr = finish(workdir, f"--export={whole}")
    assert code == 0, stderr
    assert "miou_16_b" in stdout and "labels: 64 x 128 pixels" in stdout
    assert (
        "best (2)" in stdout
        and "best evaluated step of the run: 2, miou 75.0" in stdout
    )
    expected = (run_folder / "evaluation.json").read_bytes()
    best = json.loads((run_folder / "evaluation_best.json").read_text())
    assert best["step"] == 2 and json.loads(expected)["best"]["step"] == 2
    assert json.loads(expected)["step"] == 4

    arguments = (workdir, f"--export={parts}", "--output=again.json")
    process = start(*arguments)
    journal = parts / ".again.json.journal0"
    deadline = time.monotonic() + 1200
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (run_folder / "again.json").exists() and journal.exists()
    code, _, stderr = finish(*arguments)
    assert code == 0 and "continue after" in stderr, stderr
    assert (run_folder / "again.json").read_bytes() == expected
    files = [p.relative_to(whole) for p in sorted(whole.rglob("*")) if p.is_file()]
    assert len(files) == 48
    assert files == [
        p.relative_to(parts) for p in sorted(parts.rglob("*")) if p.is_file()
    ]
    assert all((whole / f).read_bytes() == (parts / f).read_bytes() for f in files)


def test_another_protocol_needs_another_name(run_folder):
    c = tiny_eval.get_config()
    check = workdirs.check_evaluation
    assert check(c, run_folder, "evaluation.json")
    c.eval.flip = True
    with pytest.raises(
        UserError, match=r"eval\.flip: False there, True here.*--output"
    ):
        check(c, run_folder, "evaluation.json")
    assert not check(c, run_folder, "flip.json") and not check(c, run_folder, None)
    c.model.width = 9
    with pytest.raises(UserError, match=r"another network: model\.width"):
        check(c, run_folder, "flip.json")
