"""Every way in which a data set can be wrong is found in one pass, and named."""

import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import replicas
from tufl_jax import config, labels
from tufl_jax.data import files, inspection
from tufl_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
IMAGES = "leftImg8bit/train/aachen/aachen_{:06d}_000019_leftImg8bit.png"
LABELS = "gtFine/train/aachen/aachen_{:06d}_000019_gtFine_labelIds.png"


def spec(name, root, split, **fields):
    s = config.base().data.eval
    s.update(name=name, root=str(root), split=split, **fields)
    return s


def inspect(*args, labelled=None, num_classes=19, **fields):
    return inspection.inspect(
        spec(*args, **fields),
        classes=labels.cityscapes(num_classes),
        labelled=labelled,
        num_threads=3,
    )


def found(report, *, fatal=True):
    return {(p.kind, p.message) for p in report.problems if p.fatal == fatal}


def messages(report, kind):
    return [p.message for p in report.problems if p.kind == kind]


@pytest.mark.parametrize(
    "name, split, table, fields",
    [
        ("cityscapes", "train", labels.CITYSCAPES_IDS, {}),
        ("gta5", "all", labels.GTA5_IDS, {}),
        ("synthia", "all", labels.SYNTHIA_IDS, {}),
        ("crosscity", "test", labels.CROSSCITY_IDS, {"city": "Rio"}),
    ],
)
def test_counts_of_a_good_set(tmp_path, name, split, table, fields):
    written = getattr(replicas, name)(tmp_path)
    report = inspect(name, tmp_path, split, **fields)
    assert report.usable and report.labelled, report.problems
    if name == "cityscapes":  # the writer's last split
        written = {}
        for i, city in enumerate(("aachen", "bochum", "aachen")):
            part = f"{city}/{city}_{i:06d}_000019"
            ids = np.asarray(
                Image.open(tmp_path / f"gtFine/train/{part}_gtFine_labelIds.png")
            )
            written[part] = None, ids
    pairs = [ids for _, ids in written.values() if ids is not None]
    assert report.items == len(pairs)
    for raw in range(256):
        assert report.pixels[raw] == sum((ids == raw).sum() for ids in pairs)
        assert report.images[raw] == sum((ids == raw).any() for ids in pairs)
    classes = [replicas.expected(ids, table) for ids in pairs]
    for i in range(19):
        assert report.class_images[i] == sum((x == i).any() for x in classes)


def test_known_bad_files_are_skipped_by_name_and_counts_know_it(tmp_path):
    replicas.gta5(tmp_path / "gta5")
    report = inspect("gta5", tmp_path / "gta5", "all")
    assert list(report.skipped) == ["15188"] and report.usable
    assert (report.items, report.expected) == (4, 24965)
    replicas.train_extra(tmp_path / "extra")
    report = inspect(
        "cityscapes", tmp_path / "extra", "train_extra", annotation="gtCoarse"
    )
    assert (report.items, report.expected) == (3, 19997) and report.usable
    assert list(report.skipped) == ["troisdorf/troisdorf_000000_000073"]
    assert len(report.sizes) == 1


def test_every_corruption_in_one_pass(tmp_path):
    replicas.cityscapes(tmp_path, splits=("train",), per_split=40)
    image = {i: tmp_path / IMAGES.format(i) for i in range(0, 40, 2)}
    label = {i: tmp_path / LABELS.format(i) for i in range(0, 40, 2)}
    image[0].write_bytes(image[0].read_bytes()[:-400])  # truncated
    image[2].write_bytes(b"")
    replicas.save(label[4], np.full((9, 13), 7, np.uint8))  # another size
    colours = labels.cityscapes(19).colorize(np.full(replicas.SIZE, 3))
    replicas.save(label[6], colours)  # palette turned into colours
    grey = np.asarray(Image.fromarray(colours).convert("L"))
    replicas.save(label[8], grey)  # ... and into grey
    replicas.save(label[10], np.full(replicas.SIZE, 200, np.uint8))
    label[12].unlink()  # missing pair
    image[14].unlink()  # missing the other way round
    image[16].unlink()
    image[16].symlink_to(image[16].name)  # a link to itself
    bomb(image[18], 40_000)
    bomb(label[20], 12_000)
    replicas.save(image[22], np.full((*replicas.SIZE, 3), 7, np.uint8))
    replicas.save(label[24], np.zeros(replicas.SIZE, np.uint8))
    image[26].write_bytes(image[28].read_bytes())  # twice the same
    label[30].write_bytes(b"\x89PNG\r\n\x1a\n and then something else")
    (image[0].parent / "again").symlink_to(image[0].parent)
    picture = np.full((7000, 7200), 7, np.uint8)  # 50 megapixels
    picture[0] = 8
    Image.fromarray(picture).save(image[32], compress_level=1)
    Image.fromarray(picture).save(label[32], compress_level=1)
    report = inspect("cityscapes", tmp_path, "train", labelled=True)
    fatal = {
        ("image", "000000_000019_left"): "truncated",
        ("image", "000002_000019_left"): "0 bytes",
        ("size mismatch", "000004_000019_gtFine"): "13x9",
        ("label", "000006_000019_gtFine"): "mode RGB",
        ("unknown ids", "000008_000019_gtFine"): "grey picture of its colours",
        ("unknown ids", "000010_000019_gtFine"): "id 200",
        ("no label", "000012_000019"): "missing",
        ("image", "000016_000019_left"): "symbolic links",
        ("image", "000018_000019_left"): "more than 178956970 pixels",
        ("label", "000020_000019_gtFine"): "12000x12000",
        ("label", "000030_000019_gtFine"): "cannot be read",
        ("files", "again"): "leads back",
    }
    mild = {
        ("no image", "000014_000019_gtFine"): "without an image",
        ("one colour", "000022_000019_left"): "one colour",
        ("all zero", "000024_000019_gtFine"): "id 0",
        ("duplicate", "000028"): "000026",
        ("size", "000032"): "7200x7000",
    }
    for expected, is_fatal in ((fatal, True), (mild, False)):
        problems = found(report, fatal=is_fatal)
        for (kind, name), words in expected.items():
            hits = [m for k, m in problems if k == kind and name in m and words in m]
            assert hits, (kind, name, words, problems)
            problems -= {(kind, m) for m in hits}
        assert {k for k, _ in problems} <= {"count", "absent class"}, problems
    assert not report.usable
    assert report.items == 39 and all("\n" not in p.message for p in report.problems)
    bad = {report.source.name(i)[-13:] for i in range(39) if i not in report.good}
    assert len(bad) == 11
    assert all(report.source.label(i).shape for i in report.good)


def bomb(path, side):
    """A PNG whose header promises side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + replicas._chunk(b"IHDR", header)
        + replicas._chunk(b"IDAT", b"x\x9c")
        + replicas._chunk(b"IEND", b"")
    )


def test_files_and_folders_without_permission(tmp_path, monkeypatch):
    replicas.cityscapes(tmp_path, splits=("train",), per_split=4)
    secret = str(tmp_path / IMAGES.format(2))

    def refusing(real):
        def refuse(path, *args, **kwargs):
            if str(path) == secret or str(path).endswith("bochum"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *args, **kwargs)

        return refuse

    # Not chmod: these tests may run as root, whom no permission stops.
    monkeypatch.setattr(files, "open", refusing(open), raising=False)
    report = inspect("cityscapes", tmp_path, "train")
    assert [m for m in messages(report, "image") if secret in m and "Permission" in m]
    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    report = inspect("cityscapes", tmp_path, "train")
    assert "bochum: cannot be read (Permission" in messages(report, "files")[0]
    assert not report.usable


def test_two_files_of_one_name(tmp_path):
    replicas.crosscity(tmp_path)
    folder = tmp_path / "Rio/Images/Train"
    path = folder / "pano_00001_0_180.png"
    Image.open(path).save(path.with_suffix(".jpg"))
    report = inspect("crosscity", tmp_path, "train", city="Rio")
    assert "have one name" in messages(report, "files")[0]
    assert path.stem in messages(report, "files")[0]
    (tmp_path / "Rio/List/train.txt").write_text("pano_00000_0_180\nabsent_one\n")
    report = inspect("crosscity", tmp_path, "train", city="Rio")
    assert any("absent_one" in m for m in messages(report, "files"))
    assert report.items == 1


def test_synthia_read_by_a_tool_that_keeps_high_bytes(tmp_path):
    replicas.synthia(tmp_path)
    folder = tmp_path / "RAND_CITYSCAPES/GT/LABELS"
    for path in folder.iterdir():
        Image.fromarray(np.zeros(replicas.SIZE, np.uint8)).save(path)
    report = inspect("synthia", tmp_path, "all", num_classes=16)
    assert len(messages(report, "label")) == 3 and not report.usable


def test_all_zero_labels_everywhere_are_fatal(tmp_path):
    replicas.cityscapes(tmp_path, splits=("train",))
    for path in tmp_path.rglob("*labelIds.png"):
        replicas.save(path, np.zeros(replicas.SIZE, np.uint8))
    report = inspect("cityscapes", tmp_path, "train")
    assert ("all zero", "3 of 3 labels have no id but 0: decoded wrongly") in found(
        report
    )


def test_cityscapes_counts_itself(tmp_path, monkeypatch):
    replicas.cityscapes(tmp_path, splits=("train",), per_split=2)
    report = inspect("cityscapes", tmp_path, "train")
    assert not messages(report, "self-check")
    known = {"road": int(report.class_images[0]), "bicycle": 3}
    monkeypatch.setattr(inspection, "_CITYSCAPES_TRAIN", known)
    report.items = 2975
    inspection._judge_whole(report, spec("cityscapes", tmp_path, "train"))
    (message,) = messages(report, "self-check")
    assert message.startswith("bicycle is in") and "others count 3" in message


def test_nothing_to_look_at_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        inspect("gta5", tmp_path / "absent", "all")
    with pytest.raises(UserError, match="images"):
        inspect("gta5", tmp_path, "all")


def check_data(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tufl_jax.check_data", *map(str, arguments)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=600,
    )


def test_the_command(tmp_path):
    """Table, report, pictures and exit code; train and val share a picture."""
    root, output = tmp_path / "set", tmp_path / "out"
    replicas.cityscapes(root)
    name = "aachen/aachen_000000_000019_leftImg8bit.png"
    shared = (root / "leftImg8bit/train" / name).read_bytes()
    (root / "leftImg8bit/val" / name).write_bytes(shared)
    arguments = ("--dataset=cityscapes", f"--root={root}", f"--output={output}")
    result = check_data(*arguments)
    assert result.returncode == 0, result.stderr
    assert "images: 3 of 2975" in result.stdout and "images: 3 of 500" in result.stdout
    assert "1 pictures of cityscapes train are in cityscapes val" in result.stdout
    report = json.loads((output / "report.json").read_text())
    assert report["usable"] and len(report["sets"]) == 2
    assert report["sets"][0]["sizes"] == {"32 x 64": 3}
    assert len(report["duplicates_between"]) == 1
    for path in output.glob("*.png"):
        with Image.open(path) as sheet:
            assert sheet.width > 1400
    assert len(list(output.glob("*.png"))) == 2
    (root / "leftImg8bit/val" / name).write_bytes(b"")
    result = check_data(*arguments, "--split=val")
    assert result.returncode == 1 and "NOT usable" in result.stdout
    assert f"error (image): {root}/leftImg8bit/val/{name}: is empty" in result.stdout
    assert not json.loads((output / "report.json").read_text())["usable"]
