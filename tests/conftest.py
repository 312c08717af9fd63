"""Eight CPU devices and a compilation cache for every test."""

import os
import pathlib

import jax

# Most of the suite's time is XLA compiling; a cache makes the second run short.
CACHE = pathlib.Path(
    os.environ.setdefault(
        "JAX_COMPILATION_CACHE_DIR",
        str(pathlib.Path(__file__).parent.parent / ".pytest_cache" / "xla"),
    )
)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# Compiling without optimisations takes half of the time. test_steps.py turns them on.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_platforms", "cpu")
