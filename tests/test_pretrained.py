"""Weights in and out: round trip, strictness, and files that must be refused."""

import builtins
import collections
import hashlib
import io
import os
import pickle
import struct
import types
import zipfile

import jax
import numpy as np
import pytest

from tufl_jax import convert, models
from tufl_jax.errors import UserError
from tufl_jax.models import pretrained
from tufl_jax.models.weight_files import read_weights

CLASSES = 3


@pytest.fixture(scope="module")
def model():
    return models.build("bisenet", num_classes=CLASSES, width=4)


@pytest.fixture(scope="module")
def variables(model):
    """Variables in which no two arrays are equal."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: rng.random(x.shape).astype(np.float32) + 0.1, models.shapes(model)
    )


@pytest.fixture
def arrays(variables, model):
    return pretrained.to_torch(variables, model)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def as_torchvision(arrays):
    """The backbone under the names of a torchvision state dict."""
    start = "cp.resnet."
    out = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
    out = {
        k.replace("downsample_conv", "downsample.0").replace(
            "downsample_bn", "downsample.1"
        ): v
        for k, v in out.items()
    }
    out["fc.weight"] = np.ones((1000, 32), np.float32)
    out["fc.bias"] = np.ones(1000, np.float32)
    out["bn1.num_batches_tracked"] = np.array(5)
    return out


# A stand-in for torch, so that pickle writes the globals that torch.save writes.
class _Storage:
    def __init__(self, kind, key, values):
        self.kind, self.key, self.values = kind, key, values


class _Global:
    """Pickles as a reference to module.name."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class _Tensor:
    def __init__(self, storage, shape, strides):
        self.args = (storage, 0, shape, strides, False, collections.OrderedDict())

    def __reduce__(self):
        return _rebuild, self.args


def _rebuild(*args):
    raise AssertionError("only a name")


class _Pickler(pickle._Pickler):
    """Writes _rebuild and storages under the names that torch has for them."""

    def save_global(self, obj, name=None):
        if obj is _rebuild:
            self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
        elif isinstance(obj, _Global):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        else:
            super().save_global(obj, name)

    dispatch = {**pickle._Pickler.dispatch, _Global: save_global}
    dispatch[types.FunctionType] = save_global

    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            kind = _Global("torch", obj.kind)
            return ("storage", kind, obj.key, "cpu", obj.values.size)
        return None


def dumps(obj):
    file = io.BytesIO()
    _Pickler(file, protocol=2).dump(obj)
    return file.getvalue()


def tensors(arrays):
    kinds = {"f": "FloatStorage", "i": "LongStorage"}
    named, storages = collections.OrderedDict(), []
    for i, (name, values) in enumerate(arrays.items()):
        values = np.asarray(values)
        storages.append(_Storage(kinds[values.dtype.kind], str(i), values))
        strides = [s // values.itemsize for s in values.strides]
        named[name] = _Tensor(storages[-1], values.shape, tuple(strides))
    return named, storages


def write_torch(path, arrays, wrap=None):
    named, storages = tensors(arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", dumps(wrap(named) if wrap else named))
        archive.writestr("net/byteorder", "little")
        for storage in storages:
            archive.writestr(f"net/data/{storage.key}", storage.values.tobytes())


def write_torch_legacy(path, arrays):
    named, storages = tensors(arrays)
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    with open(path, "wb") as file:
        for part in (*head, named, [s.key for s in storages]):
            file.write(dumps(part))
        for storage in storages:
            file.write(struct.pack("<q", storage.values.size))
            file.write(storage.values.tobytes())


def write_raw(path, data):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", data)


def test_round_trip_is_exact(model, variables, arrays):
    same(pretrained.from_torch(arrays, model), variables)
    assert arrays["cp.resnet.layer2.0.conv1.weight"].shape == (8, 4, 3, 3)
    kernel = variables["params"]["cp"]["resnet"]["layer2_0"]["conv1"]["kernel"]
    want = arrays["cp.resnet.layer2.0.conv1.weight"]
    assert kernel[2, 0, 3, 5] == want[5, 3, 2, 0]
    assert all(v.flags["C_CONTIGUOUS"] for v in arrays.values())


def test_prefixes_are_stripped_and_counters_ignored(model, variables, arrays):
    wrapped = {f"module.model.{k}": v for k, v in arrays.items()}
    wrapped["module.model.cp.resnet.bn1.num_batches_tracked"] = np.array(7)
    same(pretrained.from_torch(wrapped, model), variables)


def test_strict(model, arrays):
    missing = {k: v for k, v in arrays.items() if k != "ffm.conv1.weight"}
    with pytest.raises(UserError, match=r"missing 1 \(ffm.conv1.weight\)"):
        pretrained.from_torch(missing, model)
    with pytest.raises(UserError, match=r"unexpected 1 \(extra\)"):
        pretrained.from_torch(arrays | {"extra": np.ones(1)}, model)
    other = models.build("bisenet", num_classes=5, width=4)
    with pytest.raises(UserError, match=r"conv_out.weight: file 3x16x1x1, model 5x16"):
        pretrained.from_torch(arrays, other)
    with pytest.raises(UserError, match="missing 179.*unexpected 1"):
        pretrained.from_torch(
            {"cp.resnet.x": np.ones(1)} | dict([*arrays.items()][:1]), model
        )
    bad = arrays | {"cp.resnet.bn1.weight": np.full(4, np.nan, np.float32)}
    with pytest.raises(UserError, match="'cp.resnet.bn1.weight'.*not finite"):
        pretrained.from_torch(bad, model)


def test_named_exceptions(model, variables, arrays):
    main_only = {k: v for k, v in arrays.items() if not k.startswith("conv_out1")}
    allowed = ("conv_out16.*",)
    first = models.init(model, jax.random.key(0))
    got = pretrained.from_torch(
        main_only, model, variables=first, allow_missing=allowed
    )
    same(got["params"]["conv_out16"], first["params"]["conv_out16"])
    same(got["params"]["cp"], variables["params"]["cp"])
    with pytest.raises(UserError, match="missing and there is no first value"):
        pretrained.from_torch(main_only, model, allow_missing=allowed)
    small = models.build("bisenet", num_classes=CLASSES, width=4, aux_heads=False)
    got = pretrained.from_torch(
        arrays, small, allow_unexpected=("conv_out16.*", "conv_out32.*")
    )
    same(got["params"]["ffm"], variables["params"]["ffm"])


def test_backbone(model, variables, arrays):
    first = models.init(model, jax.random.key(0))
    tv = as_torchvision(arrays)
    got = pretrained.backbone_from_torch(tv, model, first)
    for collection in ("params", "batch_stats"):
        want = variables[collection]["cp"]["resnet"]
        same(got[collection]["cp"]["resnet"], want)
        same(got[collection]["sp"], first[collection]["sp"])
    del tv["layer4.1.bn2.bias"]
    with pytest.raises(UserError, match="missing 1 .*layer4.1.bn2.bias"):
        pretrained.backbone_from_torch(tv, model, first)
    wide = models.build("bisenet", num_classes=CLASSES, width=8)
    with pytest.raises(UserError, match="other shape.*width"):
        pretrained.backbone_from_torch(as_torchvision(arrays), wide, first)


def test_abs_scale(model, arrays):
    arrays["sp.conv1.bn.weight"] = -arrays["sp.conv1.bn.weight"]
    got = pretrained.from_torch(arrays, model, abs_scale=True)["params"]["sp"]["conv1"]
    want = -arrays["sp.conv1.bn.weight"] + np.float32(1e-5)
    np.testing.assert_array_equal(got["bn"]["scale"], want)
    np.testing.assert_array_equal(got["bn"]["bias"], arrays["sp.conv1.bn.bias"])


def test_every_format_reads_the_same(tmp_path, model, variables, arrays):
    from safetensors.numpy import save_file

    arrays["cp.resnet.bn1.num_batches_tracked"] = np.array(3)
    np.savez(tmp_path / "a.npz", **arrays)
    save_file(arrays, tmp_path / "a.safetensors")
    write_torch(tmp_path / "a.pth", arrays)
    write_torch(tmp_path / "b.pth", arrays, lambda x: {"epoch": 3, "state_dict": x})
    write_torch_legacy(tmp_path / "c.pth", arrays)
    for path in sorted(tmp_path.iterdir()):
        read = read_weights(path)
        assert set(read) == set(arrays), path
        for name, values in arrays.items():
            np.testing.assert_array_equal(read[name], values)
            assert read[name].dtype == values.dtype
        first = models.init(model, jax.random.key(0))
        same(pretrained.load(str(path), model, first), variables)


def test_strided_view_of_a_storage(tmp_path):
    values = np.arange(6, dtype=np.float32)
    storage = _Storage("FloatStorage", "0", values)
    data = dumps({"w": _Tensor(storage, (3, 2), (1, 3))})
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("net/data.pkl", data)
        archive.writestr("net/data/0", values.tobytes())
    np.testing.assert_array_equal(
        read_weights(tmp_path / "a.pth")["w"], values.reshape(2, 3).T
    )


class _Attack:
    def __init__(self, function, *args):
        self.parts = (function, args)

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("legacy", [False, True])
def test_hostile_pickle_is_refused_and_not_run(tmp_path, legacy):
    marker = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    for attack in (
        _Attack(os.mkdir, str(marker)),
        _Attack(eval, f"__import__('os').mkdir({str(marker)!r})"),
        _Attack(builtins.getattr, {}, "keys"),
    ):
        data = pickle.dumps({"w": attack}, protocol=2)
        path.write_bytes(data) if legacy else write_raw(path, data)
        with pytest.raises(UserError, match="refused.*pickles are never executed"):
            read_weights(path)
        assert not marker.exists()
    objects = np.array([_Attack(os.mkdir, str(marker))], dtype=object)
    np.savez(tmp_path / "evil.npz", w=objects)
    with pytest.raises(UserError, match="refused.*pickles are never executed"):
        read_weights(tmp_path / "evil.npz")
    assert not marker.exists()


def test_tensor_outside_its_storage_is_refused(tmp_path):
    values = np.zeros(4, np.float32)
    storage = _Storage("FloatStorage", "0", values)

    class Changed(_Tensor):
        def __reduce__(self):  # a shape set behind the constructor's back
            return _rebuild, self.args, (None, {"shape": (1000,)})

    for tensor in (
        _Tensor(storage, (5,), (1,)),
        _Tensor(storage, (2,), (4,)),
        _Tensor(storage, (10**12,), (0,)),
        _Tensor(storage, (-1,), (1,)),
        Changed(storage, (4,), (1,)),
    ):
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("net/data.pkl", dumps({"w": tensor}))
            archive.writestr("net/data/0", values.tobytes())
        with pytest.raises(UserError, match="a.pth: damaged: a tensor"):
            read_weights(tmp_path / "a.pth")


def test_truncated_files_are_one_line(tmp_path, arrays):
    from safetensors.numpy import save_file

    np.savez(tmp_path / "a.npz", **arrays)
    save_file(arrays, tmp_path / "a.safetensors")
    write_torch(tmp_path / "a.pth", arrays)
    write_torch_legacy(tmp_path / "b.pth", arrays)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(UserError) as caught:
                read_weights(path)
            assert str(caught.value).startswith(str(path))
            assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "none.npz")
    (tmp_path / "a.onnx").touch()
    with pytest.raises(UserError, match="not one of .npz"):
        read_weights(tmp_path / "a.onnx")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_convert(tmp_path, capsys, model, variables, arrays, suffix):
    source, target = tmp_path / "in.pth", tmp_path / f"out{suffix}"
    wrapped = {f"module.{k}": v for k, v in arrays.items()}
    wrapped["module.cp.resnet.bn1.num_batches_tracked"] = np.array(3)
    write_torch(source, wrapped)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert convert.main([str(source), str(target), "--sha256", digest]) == 0
    out = capsys.readouterr().out
    assert digest in out and "BiSeNet-ResNet18: width 4, 3 classes, 3 heads" in out
    assert "prefix 'module.'" in out and "left out    1: " in out
    same(pretrained.from_torch(read_weights(target), model), variables)
    assert sorted(os.listdir(tmp_path)) == sorted([source.name, target.name])


def test_convert_backbone(tmp_path, capsys, arrays):
    write_torch(tmp_path / "in.pth", as_torchvision(arrays))
    target = str(tmp_path / "out.npz")
    assert convert.main([str(tmp_path / "in.pth"), target, "--abs-scale"]) == 0
    out = capsys.readouterr().out
    assert "ResNet-18: width 4" in out and "20 norm scales" in out
    want = np.abs(arrays["cp.resnet.bn1.weight"]) + np.float32(1e-5)
    np.testing.assert_array_equal(read_weights(target)["bn1.weight"], want)


def test_convert_errors_write_nothing(tmp_path, capsys, arrays):
    write_torch(tmp_path / "in.pth", arrays)
    write_torch(tmp_path / "other.pth", {"encoder.weight": np.ones(3, np.float32)})
    target = str(tmp_path / "out.npz")
    for args, message in (
        ([str(tmp_path / "in.pth"), target, "--sha256", "00"], "expected 00"),
        ([str(tmp_path / "other.pth"), target], "not a network this project knows"),
        ([str(tmp_path / "none.pth"), target], "no such file"),
        ([str(tmp_path / "in.pth"), str(tmp_path / "out.h5")], "can write .npz"),
        ([str(tmp_path / "in.pth"), str(tmp_path / "no/out.npz")], "cannot write"),
    ):
        assert convert.main(args) == 1
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1
        assert captured.out == ""
    assert sorted(os.listdir(tmp_path)) == ["in.pth", "other.pth"]
