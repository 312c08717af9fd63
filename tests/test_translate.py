"""Translated data sets: whole, continued, and read in place of the originals."""

import json
import pathlib
import runpy

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.test_cyclegan import small_config
from tests.tiny import tiny_config, write_folder
from tufl_jax import config as config_lib
from tufl_jax import labels, recipe, startup, train, translation
from tufl_jax import workdir as workdirs
from tufl_jax.data import inspection
from tufl_jax.errors import UserError

CLASSES = labels.cityscapes(19)


class Negative:
    """A style that is quick and easy to foresee."""

    batch_size = 3

    def __init__(self, *, fails_at=None):
        self.seen, self._fails_at = [], fails_at

    def __call__(self, indices, images):
        assert len({x.shape for x in images}) == 1 and len(images) <= self.batch_size
        if self._fails_at in indices:
            raise KeyboardInterrupt
        self.seen += indices
        return [255 - x for x in images]


class Sizes:
    """A source with images of several sizes, some names with folders."""

    def __len__(self):
        return 10

    def name(self, index):
        return f"{'town/' if index % 2 else ''}image.{index}"

    def __getitem__(self, index):
        size = (6, 5) if index in (3, 4) else (4, 7)
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        return {"image": image, "name": self.name(index)}


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_interrupted_set_is_continued(tmp_path):
    source = Sizes()
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    translation.write_set(source, Negative(), whole, num_threads=2)
    assert len(files_of(whole)) == 10
    for i in range(10):
        with Image.open(whole / f"{source.name(i)}.png") as picture:
            np.testing.assert_array_equal(picture, 255 - source[i]["image"])
    first, second = Negative(fails_at=6), Negative()
    with pytest.raises(KeyboardInterrupt):
        translation.write_set(source, first, parts, num_threads=2)
    done = files_of(parts)
    assert 0 < len(done) < 10 and all(name.endswith(".png") for name in done)
    (parts / "image.8.png.tmp").write_bytes(b"half")  # of a process that was killed
    translation.write_set(source, second, parts, num_threads=2)
    assert files_of(parts) == files_of(whole)
    assert not set(first.seen) & set(second.seen)


def test_processes_share_a_set(tmp_path, monkeypatch):
    monkeypatch.setattr(translation.jax, "process_count", lambda: 3)
    styles = []
    for process in range(3):
        monkeypatch.setattr(translation.jax, "process_index", lambda p=process: p)
        styles.append(Negative())
        translation.write_set(Sizes(), styles[-1], tmp_path / "set", num_threads=1)
    assert [style.seen for style in styles] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert len(files_of(tmp_path / "set")) == 10


class Brighter:
    """A generator that looks at each pixel alone."""

    def apply(self, variables, images, domain, method):
        assert (domain, method) == ("target", "translate")
        assert images.shape[1] % 4 == images.shape[2] % 4 == 0
        return jnp.minimum(images + variables["params"], 1.0)


@pytest.mark.parametrize("tile", [None, (16, 24), (64, 64)])
def test_any_size_whole_or_in_tiles(tile):
    config = small_config(style__tile=tile, style__overlap=5)
    style = translation.NetworkStyle(config, Brighter(), jnp.float32(20 / 127.5))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (37, 50, 3), dtype=np.uint8) for _ in range(2)]
    for new, image in zip(style([0, 1], images), images, strict=True):
        expected = np.minimum(image.astype(int) + 20, 255)
        np.testing.assert_array_equal(new, expected)


def test_an_image_is_translated_at_the_size_of_training_and_brought_back():
    config = small_config()
    config.data.source.resize = (24, 32)
    style = translation.NetworkStyle(config, Brighter(), jnp.float32(0.0))
    image = np.full((41, 67, 3), 90, np.uint8)
    (new,) = style([0], [image])
    np.testing.assert_array_equal(new, image)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("data"))


def folder_config(data):
    config = tiny_config("stage1")
    for spec, split in ((config.data.source, "train"), (config.data.target, "val")):
        spec.update(name="cityscapes", root=str(data), split=split)
    return config


def test_a_translated_set_is_a_source_with_the_same_labels(data, tmp_path):
    config, folder = folder_config(data), tmp_path / "translated"
    translation.translate_source(config, tmp_path, folder, beta=0.1)
    before = files_of(folder)
    assert len(before) == 6 and (tmp_path / "translated.png").exists()
    assert json.loads((tmp_path / "translated.json").read_text())["method"] == "fda"
    plain = startup.open_dataset(config, "source", labelled=True)
    config.data.source.translated = str(folder)
    new = startup.open_dataset(config, "source", labelled=True)
    assert len(new) == len(plain) and new.fingerprint() == plain.fingerprint()
    for i in range(len(new)):
        assert new.name(i) == plain.name(i)
        np.testing.assert_array_equal(new[i]["label"], plain[i]["label"])
        assert new[i]["image"].shape == plain[i]["image"].shape
        assert (new[i]["image"] != plain[i]["image"]).any()
    reports = []
    for translated in ("", str(folder)):
        config.data.source.translated = translated
        spec = config.data.source
        reports.append(inspection.inspect(spec, classes=CLASSES, labelled=True))
    assert all(report.usable for report in reports)
    np.testing.assert_array_equal(reports[0].pixels, reports[1].pixels)
    assert not reports[0].hashes.keys() & reports[1].hashes.keys()
    # The same call has nothing to do; another one is refused, and so is a gap.
    translation.translate_source(config, tmp_path, folder, beta=0.1)
    assert files_of(folder) == before
    with pytest.raises(UserError, match=r"another translation \(beta: 0.1 there, 0.2"):
        translation.translate_source(config, tmp_path, folder, beta=0.2)
    (folder / f"{plain.name(2)}.png").unlink()
    with pytest.raises(UserError, match="1 of 6 images are not there, e.g. town"):
        startup.open_dataset(config, "source", labelled=True)
    config.data.source.translated = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no translated images there: run python -m"):
        startup.open_dataset(config, "source", labelled=True)


def test_a_missing_label_of_a_translated_set_is_named(tmp_path):
    config = folder_config(write_folder(tmp_path / "data"))
    folder = tmp_path / "translated"
    translation.translate_source(config, tmp_path, folder, beta=0.1)
    config.data.source.translated = str(folder)
    label = min((tmp_path / "data/gtFine/train").rglob("*_labelIds.png"))
    label.unlink()
    report = inspection.inspect(config.data.source, classes=CLASSES, labelled=True)
    (problem,) = [p for p in report.problems if p.kind == "no label"]
    assert not report.usable and problem.message.startswith(f"{label}: is missing")


def test_streets_are_translated_and_other_streets_are_not_mistaken_for_them(tmp_path):
    config, folder = tiny_config("stage1"), tmp_path / "translated"
    config.data.source.length = 3
    plain = startup.open_dataset(config, "source", labelled=True)
    translation.translate_source(config, tmp_path, folder, beta=0.05)
    config.data.source.translated = str(folder)
    for classes in (19, 16):
        config.num_classes = classes
        new = startup.open_dataset(config, "source", labelled=True)
        with Image.open(folder / f"{plain.name(1)}.png") as picture:
            np.testing.assert_array_equal(picture, new[1]["image"])
    config.num_classes = 19
    new = startup.open_dataset(config, "source", labelled=True)
    np.testing.assert_array_equal(new[2]["label"], plain[2]["label"])
    config.seed = 1
    with pytest.raises(UserError, match="streets of seed 0, not 1"):
        startup.open_dataset(config, "source", labelled=True)
    config.seed, config.data.source.size = 0, (32, 64)
    with pytest.raises(UserError, match="128x64 pixels, its street has 64x32"):
        startup.open_dataset(config, "source", labelled=True)[0]


def test_a_folder_with_other_files_is_not_written_to(data, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.png").write_bytes(b"")
    with pytest.raises(UserError, match="holds other files: choose another --output"):
        translation.translate_source(
            folder_config(data), tmp_path, tmp_path / "photos", beta=0.1
        )


def test_a_recipe_hands_translated_images_on(monkeypatch, tmp_path):
    c = config_lib.base()
    c.data.source.translated = "style"
    c.recipe = ("style", "source")
    with c.unlocked():
        style = {"stage": "cyclegan", "data": {"source": {"translated": ""}}}
        c.runs.style, c.runs.source = style, {"stage": "source"}
    run = recipe.resolve(c, "source", tmp_path)
    folder = tmp_path / "style/translated"
    assert run.data.source.translated == str(folder)
    assert recipe.resolve(c, "style", tmp_path).data.source.translated == ""
    done = []
    monkeypatch.setattr(train, "train", lambda run, workdir: done.append(workdir.name))
    monkeypatch.setattr(
        translation, "translate_source", lambda run, workdir, to: done.append(to)
    )
    assert [name for name, _ in recipe.train_runs(c, tmp_path)] == ["style", "source"]
    assert done == ["style", folder, "source"]
    results = {
        "style": {"step": 5, "checkpoint": "x", "cycle_source": 4.25},
        "source": {"iou": {"road": 0.5}, "miou": 0.5, "label_size": [4, 8]},
    }
    table = recipe.results_table(results)
    assert (
        "road" in table and "style: mean error of 255 at step 5: cycle_source" in table
    )
    del results["source"]
    assert recipe.results_table(results).startswith("style: mean error")


def test_a_run_of_another_style_is_refused(tmp_path):
    config = small_config()
    with pytest.raises(UserError, match="no config.json in .*: train that run first"):
        workdirs.check_style(config, tmp_path)
    content = json.dumps(config_lib.as_json(config))
    (tmp_path / "config.json").write_text(content)
    workdirs.check_style(config, tmp_path)
    config.style.blocks = 9
    with pytest.raises(UserError, match="style.blocks: 0 there, 9 here"):
        workdirs.check_style(config, tmp_path)


def test_configs_name_the_folders_of_their_translations():
    root = pathlib.Path(__file__).parents[1] / "configs"

    def config(name):
        return runpy.run_path(str(root / f"{name}.py"))["get_config"]()

    for name in ("synthia", "gta5"):
        folder = f"runs/cyclegan_{name}/translated"
        assert config(f"{name}_source").data.source.translated == folder
        assert config(f"{name}_oracle").data.source.translated == ""
        style = config(f"cyclegan_{name}")
        assert style.stage == "cyclegan" and style.data.source.translated == ""
        whole = config(f"{name}_ist")
        assert whole.recipe == ("cyclegan", "source", "stage1", "stage2")
        for run in whole.recipe[1:]:
            found = recipe.resolve(whole, run, pathlib.Path("runs/x"))
            assert found.data.source.translated == "runs/x/cyclegan/translated"
    assert config("cyclegan_streets").style.width == 16
