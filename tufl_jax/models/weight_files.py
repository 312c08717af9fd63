"""Weight files: reads .npz, .safetensors and torch checkpoints, none of them by trust.

A torch checkpoint is a pickle, and a pickle is a program. It is read here without
torch by an unpickler that knows tensors, storages and dictionaries and refuses
everything else before it runs.
"""

import collections
import io
import math
import os
import pickle
import zipfile
import zlib

import ml_dtypes
import numpy as np

from tufl_jax.errors import UserError

_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_CONTAINERS = ("state_dict", "model_state_dict", "model")
# NumPy numbers, such as the best mIoU so far: read as nothing.
_SCALARS = (
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# What damaged files raise in the readers; a hostile pickle adds the last three.
_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
)


def read_weights(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every array of a weights file.

    Args:
      path: .npz, .safetensors, or .pth / .pt / .tar as torch.save writes them (zip or
        the older format; a state dict, or a dict that has one under 'state_dict',
        'model_state_dict' or 'model', or as ProDA under its class and 'model_state').

    Returns:
      name -> array, in the dtype and layout of the file.

    Raises:
      UserError: one line for a file that is missing, truncated, of an unknown
        kind, or whose pickle asks for anything but tensors.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file")
    suffix = os.path.splitext(path)[1].lower()
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    readers |= dict.fromkeys((".pth", ".pt", ".tar"), _read_torch)
    if suffix not in readers:
        raise UserError(f"{path}: not one of {', '.join(readers)}")
    try:
        return readers[suffix](path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: truncated or not a torch checkpoint ({error})"
        ) from None
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: truncated or damaged ({reason})") from None


def _read_npz(path):
    # zipfile first: np.load leaves the file open when the archive is damaged.
    with zipfile.ZipFile(path):
        pass
    with np.load(path, allow_pickle=False) as file:
        try:
            return {name: file[name] for name in file.files}
        except ValueError as error:
            if "allow_pickle" in str(error):
                raise _refused("an array of Python objects") from None
            raise


def _read_safetensors(path):
    # The library's own errors are not ValueErrors.
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError:
        raise UserError(
            f"{path}: reading .safetensors needs pip install 'tufl-jax[convert]'"
        ) from None

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"truncated or damaged ({error})") from None


def _read_torch(path):
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    root = _read_torch_zip(path) if is_zip else _read_torch_legacy(path)
    root = _state_dict(root)
    if not isinstance(root, dict) or not root:
        raise UserError("holds no state dict; save model.state_dict()")
    for name, value in root.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise UserError(f"entry {name!r} is no tensor; save model.state_dict()")
    return {name: value.array() for name, value in root.items()}


def _state_dict(root):
    """What `root` holds under one of the names that trainers have for the network."""
    if not isinstance(root, dict):
        return root
    for key in _CONTAINERS:
        if isinstance(root.get(key), dict):
            return root[key]
    # ProDA: {'iter': ..., 'ResNet101': {'model_state': ...}, ...}, the largest of them
    # being the network and the others discriminators.
    nets = [
        value["model_state"]
        for value in root.values()
        if isinstance(value, dict) and isinstance(value.get("model_state"), dict)
    ]
    return max(nets, key=len, default=root)


def _read_torch_zip(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        if len(found) != 1:
            raise UserError("a zip without data.pkl, so no torch checkpoint")
        folder = found[0].removesuffix("data.pkl")
        if folder + "byteorder" in names:
            if archive.read(folder + "byteorder") != b"little":
                raise UserError("big-endian checkpoints are not supported")

        def storage(dtype, key, count):
            data = archive.read(f"{folder}data/{key}")
            return _numbers(data, dtype, count, key)

        return _Unpickler(io.BytesIO(archive.read(found[0])), storage).load()


def _read_torch_legacy(path):
    """The format before torch 1.6: four pickles, the storage keys, then the numbers."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        storages = {}

        def storage(dtype, key, count):
            if key not in storages:
                if count < 0 or count * dtype.itemsize > size:
                    raise UserError(f"truncated: storage {key} is not complete")
                storages[key] = np.zeros(count, dtype)
            return storages[key]

        magic = _Unpickler(file, storage).load()
        if magic != _LEGACY_MAGIC:
            raise UserError("not a torch checkpoint")
        for _ in ("protocol version", "system"):
            _Unpickler(file, storage).load()
        root = _Unpickler(file, storage).load()
        for key in _Unpickler(file, storage).load():
            values = storages[key]
            file.read(8)  # the number of elements, known from the pickle
            data = file.read(values.nbytes)
            values[:] = _numbers(data, values.dtype, len(values), key)
    return root


def _numbers(data: bytes, dtype, count, key):
    if len(data) != count * dtype.itemsize:
        raise UserError(f"truncated: storage {key} is not complete")
    return np.frombuffer(data, dtype)


class _Tensor:
    """A strided view of a storage, as the pickle describes it."""

    __slots__ = ("storage", "offset", "shape", "strides")

    def __init__(self, storage, offset, shape, strides):
        self.storage, self.offset = storage, offset
        self.shape, self.strides = shape, strides

    def array(self) -> np.ndarray:
        """Copies the view out, after checking that it lies inside its storage.

        Only here, because a pickle can change the attributes after __init__.
        """
        storage, offset = self.storage, int(self.offset)
        shape = [int(n) for n in self.shape]
        strides = [int(n) for n in self.strides]
        if not isinstance(storage, np.ndarray) or len(shape) != len(strides):
            raise UserError("damaged: a tensor without storage or shape")
        if min([offset, *shape, *strides]) < 0:
            raise UserError("damaged: a tensor with a negative size")
        last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        count = math.prod(shape)
        # More elements than stored would be an expanded view: a memory bomb.
        if count > len(storage) or (count and offset + last >= len(storage)):
            raise UserError("damaged: a tensor that reaches past its storage")
        view = np.lib.stride_tricks.as_strided(
            storage[offset:], shape, [s * storage.itemsize for s in strides]
        )
        return np.array(view, order="C")


class _Ignored:
    """Stands for a NumPy number that a trainer saved beside the weights."""

    __slots__ = ()

    def __init__(self, *_):
        pass

    def __setstate__(self, _):
        pass


class _Unpickler(pickle.Unpickler):
    """Builds tensors, storages and ordered dictionaries; refuses any other global
    (but for NumPy numbers, in whose place it puts an object that does nothing)."""

    def __init__(self, file, storage):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if (module, name) == ("torch._utils", "_rebuild_tensor"):  # before torch 0.4
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return name  # a plain string: nothing a pickle could call or change
        if (module, name) in _SCALARS:
            return _Ignored
        raise _refused(f"{module}.{name}")

    def persistent_load(self, pid):
        kind, dtype, key, _, count = pid[:5]
        if any(pid[5:]):
            raise _refused("a view of another storage")
        if kind != "storage" or dtype not in _STORAGES:
            raise _refused(f"a persistent object of kind {kind!r}")
        return self._storage(_STORAGES[dtype], str(key), int(count))


def _rebuild_tensor(storage, offset, shape, strides, *_):
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor, *_):
    return tensor


def _refused(what: str) -> UserError:
    return UserError(
        f"refused: it asks for {what}; arbitrary pickles are never executed"
    )
