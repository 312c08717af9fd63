"""Published checkpoints are told apart by their keys; weights go back to torch."""

import json
import os

import jax
import numpy as np
import pytest

from tests.test_pretrained import _Attack, dumps, same, tensors, write_raw, write_torch
from tests.tiny import tiny_config
from tufl_jax import checkpoint, convert, models, startup
from tufl_jax import config as config_lib
from tufl_jax import state as state_lib
from tufl_jax.errors import UserError
from tufl_jax.models import pretrained, released, torch_names
from tufl_jax.models.weight_files import read_weights
from tufl_jax.models.weight_writers import write_weights

CLASSES = 3
HEADS = {
    "proda": {"head": "proda", "bn_pretrain": True},
    "sum4": {"head": "sum4", "aux_heads": True},
    "sum2": {"head": "sum2"},
}


def build(name, **options):
    return models.build(
        "deeplabv2",
        num_classes=CLASSES,
        width=4,
        blocks=(1, 1, 1, 1),
        **HEADS[name],
        **options,
    )


def state_dict(model, seed=0):
    """Variables in which no two arrays are equal, as a torch state dict."""
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(
        lambda x: rng.random(x.shape).astype(np.float32) + 0.1, models.shapes(model)
    )
    return variables, pretrained.to_torch(variables, model)


@pytest.mark.parametrize("name", HEADS)
def test_deeplab_checkpoints_are_recognised(name):
    model = build(name)
    variables, arrays = state_dict(model)
    known = released.recognise({f"module.{k}": v for k, v in arrays.items()})
    assert known.title.startswith(
        f"DeepLabV2, head {'proda' if name == 'proda' else 's'}"
    )
    assert "width 4, 3 classes" in known.title and not known.backbone
    assert known.model.bn_pretrain == model.bn_pretrain
    assert known.model.aux_heads == model.aux_heads
    assert known.notes[0] == "prefix 'module.' stripped"
    assert not pretrained.compare(known).unexpected
    same(pretrained.from_torch(known.arrays, model), variables)


def test_wrappers_of_trainers(tmp_path):
    model = build("sum2")
    variables, arrays = state_dict(model)
    single = {k.replace("layer6.", "layer5.", 1): v for k, v in arrays.items()}

    def dacs(named):
        return {"iteration": 9, "optimizer": {"state": {}}, "model": named}

    write_torch(tmp_path / "dacs.pth", single, dacs)
    first = models.init(model, jax.random.key(0))
    same(pretrained.load(str(tmp_path / "dacs.pth"), model, first), variables)

    # ProDA: a NumPy score, a small discriminator and the network.
    model = build("proda")
    variables, arrays = state_dict(model)

    def proda(named):
        other = {"model_state": dict(list(named.items())[:3])}
        nets = {"FCDiscriminator": other, "ResNet101": {"model_state": named}}
        return {"iter": 7, "best_iou": np.float64(0.5), **nets}

    write_torch(tmp_path / "proda.pth", arrays, proda)
    first = models.init(model, jax.random.key(0))
    same(pretrained.load(str(tmp_path / "proda.pth"), model, first), variables)


def test_a_view_of_another_storage_is_refused(tmp_path):
    named, storages = tensors({"w": np.zeros(4, np.float32)})
    data = dumps(named).replace(b"K\x04t", b"K\x04X\x01\x00\x00\x00vt")
    write_raw(tmp_path / "a.pth", data)
    with pytest.raises(UserError, match="refused.*view of another storage"):
        read_weights(tmp_path / "a.pth")
    assert len(storages) == 1


@pytest.fixture(scope="module")
def resnet101():
    """A ResNet-101 of width 4 as a torchvision state dict, with its classifier."""
    _, arrays = state_dict(models.build("deeplabv2", num_classes=CLASSES, width=4))
    trunk = {k: v for k, v in arrays.items() if k.startswith(released.RESNET_PARTS)}
    return {**trunk, "fc.weight": np.ones((5, 9), "f4"), "fc.bias": np.ones(5, "f4")}


def test_trunks_go_into_deeplab(resnet101):
    model = models.build("deeplabv2", num_classes=CLASSES, width=4, head="sum4")
    first = models.init(model, jax.random.key(0))
    known = released.recognise(resnet101)
    assert known.backbone and known.title.startswith("ResNet-101: width 4")
    got = pretrained.backbone_from_torch(known.arrays, model, first)
    flat = torch_names.flatten(got)
    for name, value in flat.items():
        want = resnet101.get(name, torch_names.flatten(first)[name])
        np.testing.assert_array_equal(value, want, err_msg=name)
    # The caffe weights of AdaptSegNet: a prefix, and a head for another data set.
    caffe = {f"Scale.{k}": v for k, v in resnet101.items() if not k.startswith("fc.")}
    caffe["Scale.layer5.conv2d_list.0.weight"] = np.ones((21, 128, 3, 3), "f4")
    known = released.recognise(caffe)
    assert known.title.startswith("caffe ResNet-101") and known.backbone
    assert known.ignored == ("layer5.conv2d_list.0.weight",)
    same(pretrained.backbone_from_torch(known.arrays, model, first), got)


def test_the_original_bisenet_has_torchvision_shortcuts():
    model = models.build("bisenet", num_classes=CLASSES, width=4)
    variables, arrays = state_dict(model)
    original = {
        k.replace("downsample_conv", "downsample.0").replace(
            "downsample_bn", "downsample.1"
        ): v
        for k, v in arrays.items()
    }
    assert set(original) != set(arrays)
    known = released.recognise(original)
    assert any("--abs-scale" in note for note in known.notes)
    same(pretrained.from_torch(known.arrays, model), variables)


def test_pth_round_trip_is_exact(tmp_path):
    _, arrays = state_dict(build("sum4"))
    arrays |= {
        "counter": np.array(7),
        "half": np.arange(3, dtype=np.float16),
        "none": np.zeros((0, 2), np.float32),
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    }
    write_weights(str(tmp_path / "a.pth"), arrays)
    read = read_weights(tmp_path / "a.pth")
    assert list(read) == list(arrays)
    for name, values in arrays.items():
        assert read[name].dtype == values.dtype
        np.testing.assert_array_equal(read[name], values)


def test_torch_reads_what_we_write(tmp_path):
    torch = pytest.importorskip("torch")
    _, arrays = state_dict(build("proda"))
    write_weights(str(tmp_path / "a.pth"), arrays)
    read = torch.load(tmp_path / "a.pth", weights_only=True)
    assert list(read) == list(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(read[name].numpy(), values)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """The folder of a run of a tiny BiSeNet, its config and its variables."""
    workdir = tmp_path_factory.mktemp("run")
    config = tiny_config("source", model__width=4)
    model = startup.build_model(config)
    variables, _ = state_dict(model)
    optimizer, _ = startup.build_optimizer(config, model)
    state = state_lib.create(
        variables, optimizer, num_classes=19, initial_threshold=0.8, metrics=()
    )
    saved = checkpoint.Checkpoints(workdir)
    saved.save(state.replace(step=state.step + 6))
    saved.close()
    (workdir / "config.json").write_text(json.dumps(config_lib.as_json(config)))
    return workdir, config, variables


def test_convert_a_run(workdir, tmp_path, capsys):
    folder, config, variables = workdir
    target = str(tmp_path / "out.pth")
    assert convert.main(["--workdir", str(folder), target]) == 0
    assert "step 6" in capsys.readouterr().out
    model = startup.build_model(config)
    same(pretrained.load_network(target, model), variables)
    # And once more through the converter: the same bytes.
    again = str(tmp_path / "again.pth")
    assert convert.main([target, again]) == 0
    out = capsys.readouterr().out
    assert f"loaded      {len(read_weights(target))} of" in out
    for name, values in read_weights(target).items():
        np.testing.assert_array_equal(read_weights(again)[name], values)
    assert convert.main(["--workdir", str(tmp_path), target]) == 1
    assert "it is not the folder of a run" in capsys.readouterr().err


def test_bad_weights_are_one_line(tmp_path, capsys):
    _, arrays = state_dict(build("sum4"))
    whole, cut, evil = (tmp_path / f"{n}.pth" for n in ("whole", "cut", "evil"))
    write_weights(str(whole), arrays)
    cut.write_bytes(whole.read_bytes()[:-2000])
    write_raw(evil, dumps({"w": _Attack(os.mkdir, str(tmp_path / "ran"))}))
    lacks = {k: v for k, v in arrays.items() if k != "layer2.0.bn1.bias"}
    write_weights(str(tmp_path / "lacks.pth"), lacks)
    other = arrays | {"layer2.0.bn1.bias": np.ones(5, np.float32)}
    write_weights(str(tmp_path / "other.pth"), other)
    files = sorted(os.listdir(tmp_path))
    for name, message in (
        ("cut", "truncated"),
        ("evil", "refused"),
        ("lacks", r"missing 1 (layer2.0.bn1.bias)"),
        ("other", "layer2.0.bn1.bias: file 5, model 8"),
    ):
        for target in ("out.npz", "out.pth"):
            source = str(tmp_path / f"{name}.pth")
            assert convert.main([source, str(tmp_path / target)]) == 1
            captured = capsys.readouterr()
            assert message in captured.err and captured.err.count("\n") == 1
            assert source in captured.err and captured.out == ""
    assert sorted(os.listdir(tmp_path)) == files


def test_evaluate_refuses_weights_of_another_network(tmp_path):
    model = models.build("bisenet", num_classes=19, width=8)
    _, arrays = state_dict(models.build("bisenet", num_classes=13, width=8))
    write_weights(str(tmp_path / "classes.pth"), arrays)
    _, arrays = state_dict(build("sum4"))
    write_weights(str(tmp_path / "net.pth"), arrays)
    trunk = {k: v for k, v in state_dict(model)[1].items() if "cp.resnet" in k}
    trunk = {k.removeprefix("cp.resnet."): v for k, v in trunk.items()}
    write_weights(str(tmp_path / "trunk.npz"), trunk)
    for name, message in (
        ("classes.pth", "other shape 3.*file 13x32x1x1, model 19x32x1x1"),
        ("net.pth", r"missing \d+"),
        ("trunk.npz", "trunk without a head .ResNet-18"),
        ("none.pth", "no such file"),
    ):
        with pytest.raises(UserError, match=f"{name}.*{message}"):
            pretrained.load_network(str(tmp_path / name), model)
