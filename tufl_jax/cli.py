"""What every command shares: flags, log format, and errors as one line."""

import ctypes
import gc
import os
import pathlib
import sys
from collections.abc import Callable

import jax
from absl import flags, logging
from ml_collections import config_flags

from tufl_jax import config as config_lib
from tufl_jax.errors import UserError
from tufl_jax.train import Preempted

EXIT_PREEMPTED = 143  # as a process that died from SIGTERM

# A run of several processes: these three in the environment of each. launch/ sets them.
_ADDRESS, _COUNT, _INDEX = (
    "JAX_COORDINATOR_ADDRESS",  # host:port of process 0
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
)
_HEARTBEAT_SECONDS = 30  # after this long without news a process counts as dead
_LOST_CONTACT = ("Gloo", "NCCL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")


def define_config():
    """The --config flag with its --config.KEY=VALUE overrides."""
    return config_flags.DEFINE_config_file(
        "config", None, "Config file; see configs/.", lock_config=True
    )


def parse_flags(
    argv: list[str], *, default: str = "", config_required: bool = True
) -> list[str]:
    """absl's flag parsing with one line for a missing file or an unknown key.

    Where no --config is given it is `default`, if there is one.
    """
    if default and not any(x.split("=")[0] in ("--config", "-config") for x in argv):
        argv = [*argv, f"--config={default}"]
    try:
        rest = flags.FLAGS(_with_found_config(argv))
    except (AttributeError, KeyError) as error:
        _fail(_unknown_key(argv) or str(error))
    except (flags.Error, UserError, OSError, TypeError, ValueError) as error:
        # Of an error inside a config file the flag keeps the whole traceback.
        whole = str(error)
        ours = whole.rpartition(f"{UserError.__module__}.{UserError.__name__}: ")[2]
        _fail(whole if ours == whole else f"--config: {ours}")
    config = flags.FLAGS["config"].value
    if config is None and not config_required:
        return rest
    if config is None:
        _fail("no --config given, for example --config configs/demo.py")
    for key in _overrides(argv):
        for name in config.recipe:
            if key in dict(config_lib.flatten(config.runs[name].to_dict())):
                _fail(
                    f"the run '{name}' of this recipe sets {key} itself: use "
                    f"--config.runs.{name}.{key}=VALUE"
                )
    return rest


def config_name() -> str:
    """Name of the config file without its ending, and what stands behind its colon.

    'paper/table3/row4' for configs/paper.py:table3/row4.
    """
    path = config_flags.get_config_filename(flags.FLAGS["config"])
    file, _, variant = path.partition(":")
    return "/".join(filter(None, [pathlib.Path(file).stem, variant]))


def guarded(main: Callable) -> Callable:
    """`main` with logging set up and every foreseen error as one line, exit code 1."""

    def run(argv: list[str]) -> None:
        set_up_logging()
        keep_memory()
        collect_rarely()
        set_up_compilation_cache()
        set_up_processes()
        if argv[1:]:
            _fail(f"unexpected argument '{argv[1]}': settings are --config.KEY=VALUE")
        try:
            main(argv)
        except UserError as error:
            _fail(str(error))
        except Preempted as stop:
            logging.info("%s; run the same command to continue", stop)
            logging.flush()
            sys.exit(EXIT_PREEMPTED)
        except jax.errors.JaxRuntimeError as error:
            first_line = str(error).splitlines()[0][:160]
            if "RESOURCE_EXHAUSTED" in str(error):
                _fail(
                    f"out of device memory ({first_line}): lower "
                    "config.data.*.batch_size or config.data.*.crop"
                )
            if jax.process_count() > 1 and any(x in str(error) for x in _LOST_CONTACT):
                _fail(
                    f"lost another process of this run ({first_line}): its own last "
                    "lines say why; start all of them again to continue"
                )
            raise
        except OSError as error:
            if error.filename is None and error.errno is None:
                raise
            _fail(f"{error.strerror}: {error.filename or ''}")

    return run


def set_up_logging() -> None:
    """Time and message on stderr; libraries only when they fail."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().setFormatter(_Formatter())
    logging.get_absl_handler().addFilter(_own_or_error)


class _Formatter(logging.PythonFormatter):
    def format(self, record) -> str:
        self.datefmt = "%H:%M:%S"
        level = "" if record.levelname == "INFO" else f"{record.levelname.lower()}: "
        return f"{self.formatTime(record, self.datefmt)} {level}{record.getMessage()}"


def _own_or_error(record) -> bool:
    own = f"{os.sep}tufl_jax{os.sep}" in record.pathname
    return own or record.levelno >= 40  # logging.ERROR of the standard library


def set_up_processes() -> None:
    """Join the other processes of this run, if the environment says there are any.

    Their errors and this one's progress are enough to read: only the first process
    logs more than warnings.
    """
    given = [name for name in (_ADDRESS, _COUNT, _INDEX) if os.environ.get(name)]
    if not given:
        return
    missing = [name for name in (_ADDRESS, _COUNT, _INDEX) if name not in given]
    if missing:
        _fail(f"{given[0]} is set but not {missing[0]}: set all three, or none")
    try:
        count, index = int(os.environ[_COUNT]), int(os.environ[_INDEX])
    except ValueError:
        _fail(f"{_COUNT} and {_INDEX} must be whole numbers")
    if not 0 <= index < count:
        _fail(f"{_INDEX} is {index}, not one of 0 to {_COUNT} - 1 = {count - 1}")
    if count == 1:
        return
    try:
        jax.distributed.initialize(
            os.environ[_ADDRESS],
            count,
            index,
            cluster_detection_method="deactivate",  # what launch/ says, and no guesses
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        _fail(f"process {index} of {count}: {str(error).splitlines()[0]}")
    if index > 0:
        logging.set_verbosity(logging.WARNING)


def keep_memory() -> None:
    """Let glibc keep what a step has used for the next one.

    On a CPU the work space of a step is one block of malloc's. By default it comes
    from the system anew for every step, which fills its pages with zeros as they are
    touched: a third of a small step's time. Only a single arena of one heap that is
    never trimmed keeps a block of any size; where there is no glibc, nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # malloc.h
    mallopt(arena_max, 1)
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)


def collect_rarely() -> None:
    """Let Python look for garbage after 100 000 new objects, not some hundreds.

    Tracing a large network makes millions that live on: looking through them again and
    again took an eighth of the time until the first step.
    """
    gc.set_threshold(100_000)


def set_up_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless one is set."""
    if jax.config.jax_compilation_cache_dir is None:
        base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        folder = pathlib.Path(base).expanduser() / "tufl_jax" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _with_found_config(argv: list[str]) -> list[str]:
    """argv with the config file replaced by the packaged one where it is not found."""
    found = list(argv)
    for i, argument in enumerate(argv):
        if argument in ("--config", "-config") and i + 1 < len(argv):
            found[i + 1] = _find_config(argv[i + 1])
        elif argument.startswith(("--config=", "-config=")):
            flag, _, path = argument.partition("=")
            found[i] = f"{flag}={_find_config(path)}"
    return found


def _find_config(argument: str) -> str:
    path, colon, preset = argument.partition(":")
    if pathlib.Path(path).is_file():
        return argument
    packaged = pathlib.Path(__file__).parent / "configs" / pathlib.Path(path).name
    if str(pathlib.Path(path).parent) in ("configs", ".") and packaged.is_file():
        return f"{packaged}{colon}{preset}"
    raise UserError(f"--config: no file {path}")


def _unknown_key(argv: list[str]) -> str:
    """The message for the first --config.KEY that the schema lacks, or ''."""
    schema = config_lib.base()
    known = dict(config_lib.flatten(schema.to_dict()))
    for key in _overrides(argv):
        if key.startswith("runs."):
            return f"config.{key} is not set in this recipe's config.runs"
        if key not in known:
            return str(config_lib.unknown_key(schema, key))
    return ""


def _overrides(argv: list[str]) -> list[str]:
    """The keys of all --config.KEY arguments."""
    names = [argument.lstrip("-").partition("=")[0] for argument in argv[1:]]
    return [n.removeprefix("config.") for n in names if n.startswith("config.")]


def _fail(message: str) -> None:
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    print(f"error: {' '.join(lines)}", file=sys.stderr)
    if jax.distributed.is_initialized():
        # An orderly exit would wait for processes that wait for this one.
        sys.stderr.flush()
        os._exit(1)
    sys.exit(1)
