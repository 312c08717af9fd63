"""Archives and folders -> ArrayRecord -> examples, killed or not."""

import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import replicas
from tests.test_sources import OWN_FIELDS, build, refused, spec_of
from tufl_jax import labels
from tufl_jax.data import builders
from tufl_jax.data.builders import shards

ROOT = pathlib.Path(__file__).parents[1]
# name, writer, fields of the config, whether it is labelled
SETS = (
    ("cityscapes", replicas.cityscapes, {"split": "val"}, True),
    (
        "cityscapes",
        replicas.train_extra,
        {"split": "train_extra", "annotation": "gtCoarse"},
        True,
    ),
    ("gta5", replicas.gta5, {"split": "all"}, True),
    ("gta5", replicas.gta5, {"split": "train"}, True),
    ("synthia", replicas.synthia, {"split": "all"}, True),
    ("crosscity", replicas.crosscity, {"split": "train", "city": "Rio"}, False),
    ("crosscity", replicas.crosscity, {"split": "test", "city": "Rio"}, True),
    (
        "folder",
        replicas.own,
        {"split": "train", **OWN_FIELDS, "ids": (), "other_ids": "ignore"},
        True,
    ),
)


def prepare(name, root, data_dir, **fields):
    return builders.prepare(
        spec_of(name, **fields), root=str(root), data_dir=str(data_dir)
    )


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def assert_equal_examples(some, others):
    assert len(some) == len(others) > 0
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys() and a["name"] == b["name"]
        for key in a.keys() - {"name"}:
            assert a[key].dtype == b[key].dtype == np.uint8
            np.testing.assert_array_equal(a[key], b[key])


@pytest.mark.parametrize("name, write, fields, labelled", SETS)
def test_both_formats_give_the_same_examples(
    tmp_path, monkeypatch, name, write, fields, labelled
):
    monkeypatch.setattr(shards, "SHARD_ITEMS", 2)  # several shards
    root, data_dir = tmp_path / "files", tmp_path / "prepared"
    write(root)
    options = {"labelled": labelled, **fields}
    unpacked = build(name, root, **options)
    path = prepare(name, root, data_dir, **fields)
    ready = build(name, data_dir, format="prepared", **options)
    assert_equal_examples(unpacked, ready)
    assert_equal_examples(pickle.loads(pickle.dumps(ready)), unpacked)
    assert ready.files.skipped == unpacked.files.skipped
    for i in range(len(unpacked)):  # a JPEG is not encoded again
        if unpacked.image_file(i)[1].endswith(".jpg"):
            assert ready.image_file(i)[0] == unpacked.image_file(i)[0]
    assert_equal_examples(
        build(name, root, start=0.5, **options),
        build(name, data_dir, format="prepared", start=0.5, **options),
    )
    # Again does nothing, and nothing is left but the split.
    before = content(data_dir)
    assert prepare(name, root, data_dir, **fields) == path
    assert content(data_dir) == before
    assert all(file.startswith(f"{name}/") for file in before)
    if not labelled:
        refused(
            lambda: build(name, data_dir, format="prepared", **fields), "no label files"
        )


def test_archives_prepare_to_the_same_bytes(tmp_path):
    for name, write, folders in (
        ("cityscapes", replicas.cityscapes, ("leftImg8bit", "gtFine")),
        ("gta5", replicas.gta5, ("images", "labels")),
    ):
        root = tmp_path / name
        write(root)
        split = "all" if name == "gta5" else "train"
        unpacked = prepare(name, root, tmp_path / "a", split=split)
        for folder in folders:
            replicas.zipped(root, f"{folder}.zip", folder)
        packed = prepare(name, root, tmp_path / "b", split=split)
        assert content(unpacked) == content(packed)


def test_beam_writes_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ITEMS", 2)
    root = tmp_path / "files"
    replicas.synthia(root)
    threads = prepare("synthia", root, tmp_path / "a", split="all")
    spec = spec_of("synthia", root=str(root), split="all")
    options = {"root": spec.root, "data_dir": str(tmp_path / "b")}
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        refused(lambda: builders.prepare(spec, beam=[], **options), "--beam", "pip")
        return
    beam = builders.prepare(spec, beam=["--runner=DirectRunner"], **options)
    assert content(beam) == content(threads)


def test_tensorflow_is_not_needed(tmp_path):
    replicas.gta5(tmp_path / "files")
    prepare("gta5", tmp_path / "files", tmp_path, split="all")
    build("gta5", tmp_path, format="prepared", split="all")[0]
    assert "tensorflow" not in sys.modules and "torch" not in sys.modules


KILLED = """
import os, signal, sys, time
from tests.test_prepare import prepare
from tufl_jax.data import reading
from tufl_jax.data.builders import shards
shards.SHARD_ITEMS = 2
read, take = reading.read_image, shards.TakeStaged.write
def slow(*arguments):
    time.sleep(0.02)
    return read(*arguments)
def last_gasp(self, path, examples):
    take(self, path, examples)
    os.kill(os.getpid(), signal.SIGKILL)
reading.read_image = slow
if sys.argv[3] == "end":
    shards.TakeStaged.write = last_gasp
prepare("cityscapes", sys.argv[1], sys.argv[2])
"""


def killed(root, data_dir, when):
    """A prepare that dies by SIGKILL when `when` exists, or while it moves shards."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, root, data_dir, when], cwd=ROOT
    )
    if when != "end":
        deadline = time.monotonic() + 300
        while not pathlib.Path(when).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL


def test_killed_and_run_again_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ITEMS", 2)
    root = tmp_path / "files"
    replicas.cityscapes(root, splits=("train",), per_split=21, size=(8, 16))
    whole = content(prepare("cityscapes", root, tmp_path / "whole"))
    assert len([name for name in whole if "array_record" in name]) == 11
    for data_dir, when in (("a", "shard-00001"), ("b", "shard-00007"), ("c", "end")):
        data_dir = tmp_path / data_dir
        partial = data_dir / "cityscapes/gtFine-train/partial"
        killed(root, data_dir, when if when == "end" else partial / when)
        refused(
            lambda path=data_dir: build("cityscapes", path, format="prepared"),
            "not prepared",
            "python -m tufl_jax.prepare --dataset cityscapes --split train",
        )
        kept = {
            path: path.stat().st_mtime_ns
            for path in partial.glob("shard-*")
            if path.suffix != ".tmp"
        }
        path = prepare("cityscapes", root, data_dir)
        assert content(path) == whole
        times = {p.stat().st_mtime_ns for p in path.glob("*array_record*")}
        assert set(kept.values()) <= times and (when == "end" or kept)
        assert sorted(p.name for p in path.parent.iterdir()) == [".lock", "1.1.0"]


def test_staged_shards_of_other_files_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_ITEMS", 2)
    root = tmp_path / "files"
    replicas.cityscapes(root, splits=("train",), per_split=4)
    whole = content(prepare("cityscapes", root, tmp_path / "whole"))
    last = sorted(root.glob("leftImg8bit/*/*/*"))[-1]
    good = last.read_bytes()
    last.write_bytes(good[: len(good) // 2])
    refused(lambda: prepare("cityscapes", root, tmp_path / "again"), last)
    partial = tmp_path / "again/cityscapes/gtFine-train/partial"
    assert (partial / "shard-00000").exists()
    (partial / "shard-00000").write_bytes(b"of other files")
    last.write_bytes(good)
    assert content(prepare("cityscapes", root, tmp_path / "again")) == whole


def test_changed_files_are_not_mistaken_for_the_prepared(tmp_path):
    replicas.cityscapes(tmp_path / "files")
    path = prepare("cityscapes", tmp_path / "files", tmp_path)
    replicas.cityscapes(tmp_path / "files", per_split=4)
    refused(
        lambda: prepare("cityscapes", tmp_path / "files", tmp_path),
        path,
        "from other files",
        "delete it",
    )


def test_two_at_once_are_refused(tmp_path):
    import fcntl

    replicas.cityscapes(tmp_path / "files")
    path = prepare("cityscapes", tmp_path / "files", tmp_path)
    with open(path.parent / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(
            lambda: prepare("cityscapes", tmp_path / "files", tmp_path),
            "another process",
        )


def test_full_disk_is_found_before_writing(tmp_path, monkeypatch):
    replicas.cityscapes(tmp_path / "files")
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda folder: usage)
    refused(lambda: prepare("cityscapes", tmp_path / "files", tmp_path), "GB free")


def test_damaged_records_are_found(tmp_path):
    replicas.cityscapes(tmp_path / "files")
    path = prepare("cityscapes", tmp_path / "files", tmp_path)
    (record,) = path.glob("*array_record*")
    good = record.read_bytes()

    def read():
        return list(build("cityscapes", tmp_path, format="prepared"))

    record.write_bytes(good[:3000] + bytes(8) + good[3008:])
    refused(read, path, "damaged", "prepare it again")
    record.write_bytes(good[: len(good) // 2])
    refused(read, path, "damaged")
    record.unlink()
    refused(read, path, "damaged")
    record.write_bytes(good)
    assert len(read()) == 3
    for name in ("metadata.json", "dataset_info.json", "features.json"):
        json = (path / name).read_bytes()
        (path / name).write_bytes(json[: len(json) // 2])
        refused(read, path, "damaged")
        (path / name).write_bytes(json)


def test_fingerprint_follows_the_prepared_labels(tmp_path):
    prints = []
    for i in range(2):
        root = tmp_path / str(i)
        replicas.cityscapes(root / "files")
        if i:
            path = next(root.glob("files/gtFine/train/*/*"))
            replicas.save(path, np.zeros(replicas.SIZE, np.uint8))
        prepare("cityscapes", root / "files", root)
        prints.append(build("cityscapes", root, format="prepared").fingerprint())
        other = build(
            "cityscapes", root, format="prepared", classes=labels.cityscapes(16)
        )
        assert other.fingerprint() not in prints
    assert prints[0] != prints[1]


def command(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "tufl_jax.prepare", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_command(tmp_path):
    replicas.crosscity(tmp_path / "files", city="Tokyo")
    flags = ("--dataset", "crosscity", "--root", tmp_path / "files", "--city", "Tokyo")
    done = command(*flags, "--data_dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        f"{tmp_path}/out/crosscity/Tokyo-train/1.1.0",
        f"{tmp_path}/out/crosscity/Tokyo-test/1.1.0",
    ]
