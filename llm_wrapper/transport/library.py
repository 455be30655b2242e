"""litellm, loaded late and told to keep quiet: it stays off the network until a call is made."""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

_lock = threading.Lock()
_loaded: list[Any] = []

# litellm filters these when it is imported. A test runner takes such filters away again after the test in which
# the import fell, and where warnings are errors, litellm's calls would then fail.
_HARMLESS = (
    "Accessing the .*attribute on the instance is deprecated",
    "Item .* is using the `ReadOnly` qualifier",
    "Pydantic serializer warnings",
)


def litellm() -> Any:
    """The litellm module, set up for this package. The import takes seconds, so it waits for the first call."""
    if not _loaded:
        with _lock:
            if not _loaded:
                _loaded.append(_load())
    _filter_harmless()
    return _loaded[0]


def _load() -> Any:
    # Otherwise the import itself asks the network for a price map.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    # litellm would read a .env file of the working directory into the environment.
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what litellm's own imports use is for its authors to mend
        import litellm as module

        from .clients import close_at_exit
        from .demo import DemoProvider
        from .sdk import skip_idle_monitoring, skip_the_walk

        module.suppress_debug_info = True
        module.telemetry = False
        module.disable_hf_tokenizer_download = True
        module.disable_streaming_logging = True
        # A stream of many equal chunks is an answer like any other.
        module.REPEATED_STREAMING_CHUNK_LIMIT = 1_000_000_000
        module.custom_provider_map.append({"provider": "demo", "custom_handler": DemoProvider()})
        module.utils.custom_llm_setup()
        skip_the_walk()
        skip_idle_monitoring()
        # The first call imports another two seconds' worth, which must not count against its timeout.
        module.completion(model="demo/warm-up", messages=[{"role": "user", "content": "hello"}])
    close_at_exit(module)
    return module


def _filter_harmless() -> None:
    present = {getattr(entry[1], "pattern", None) for entry in warnings.filters[:40]}
    for message in _HARMLESS:
        if message not in present:
            warnings.filterwarnings("ignore", message=message)
