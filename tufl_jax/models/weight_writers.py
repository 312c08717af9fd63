"""Weight files, written: .npz, .safetensors, and .pth for torch without torch.

A torch state dict is a zip with a small pickle of names, shapes and offsets beside the
raw numbers. Its pickle has one form only, so its opcodes are written here directly; a
pickler would have to import torch to name torch's classes.
"""

import os
import struct
import zipfile

import ml_dtypes
import numpy as np

from tufl_jax.errors import UserError

SUFFIXES = (".npz", ".safetensors", ".pth")
_STORAGES = {
    np.dtype("f4"): "FloatStorage",
    np.dtype("f8"): "DoubleStorage",
    np.dtype("f2"): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype("i8"): "LongStorage",
    np.dtype("i4"): "IntStorage",
    np.dtype("i2"): "ShortStorage",
    np.dtype("i1"): "CharStorage",
    np.dtype("u1"): "ByteStorage",
    np.dtype("?"): "BoolStorage",
}


def check_suffix(path: str) -> None:
    """Raise UserError for a file kind that `write_weights` cannot write."""
    if os.path.splitext(path)[1] not in SUFFIXES:
        raise UserError(f"{path}: can write {', '.join(SUFFIXES)} only")


def write_weights(path: str, arrays: dict[str, np.ndarray]) -> None:
    """Writes a flat dictionary of arrays; the file is whole or absent.

    Args:
      path: .npz, .safetensors, or .pth, which `torch.load(path, weights_only=True)`
        reads as a state dict.
      arrays: torch name -> array in torch layout.

    Raises:
      UserError: another kind of file, or it cannot be written.
    """
    check_suffix(path)
    writer = {".npz": _npz, ".safetensors": _safetensors, ".pth": _torch}
    arrays = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            writer[os.path.splitext(path)[1]](file, arrays, path)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: cannot write ({error.strerror})") from None
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def _npz(file, arrays, path):
    del path
    np.savez(file, **arrays)


def _safetensors(file, arrays, path):
    try:
        from safetensors.numpy import save
    except ImportError:
        raise UserError(
            f"{path}: writing .safetensors needs pip install 'tufl-jax[convert]'"
        ) from None

    file.write(save(arrays))


def _torch(file, arrays, path):
    folder = os.path.splitext(os.path.basename(path))[0]
    # torch maps the numbers into memory, so they must not be compressed.
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{folder}/data.pkl", _state_dict_pickle(arrays))
        archive.writestr(f"{folder}/byteorder", "little")
        for i, value in enumerate(arrays.values()):
            little = value.astype(value.dtype.newbyteorder("<"), copy=False)
            archive.writestr(f"{folder}/data/{i}", little.tobytes())
        archive.writestr(f"{folder}/version", "3\n")


def _state_dict_pickle(arrays) -> bytes:
    """Protocol 2 of OrderedDict((name, _rebuild_tensor_v2(storage, ...)), ...)."""
    empty = b"ccollections\nOrderedDict\n)R"
    parts = [b"\x80\x02", empty, b"("]
    for i, (name, value) in enumerate(arrays.items()):
        kind = _STORAGES[value.dtype]
        strides = [s // value.itemsize for s in value.strides]
        storage = [
            b"(" + _text("storage"),
            f"ctorch\n{kind}\n".encode(),
            _text(str(i)) + _text("cpu") + _number(value.size) + b"tQ",
        ]
        parts += [_text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(", *storage]
        parts += [_number(0), _numbers(value.shape), _numbers(strides)]
        parts += [b"\x89", empty, b"tR"]  # no gradient, no hooks
    return b"".join([*parts, b"u."])


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _numbers(values) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
