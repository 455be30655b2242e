"""litellm, loaded late and told to keep quiet: it stays off the network until a call is made."""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import Any


@cache
def litellm() -> Any:
    """The litellm module, set up for this package. The import takes seconds, so it waits for the first call."""
    # Otherwise the import itself asks the network for a price map.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    # litellm would read a .env file of the working directory into the environment.
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside litellm's own imports
        import litellm as module

    from .demo import DemoProvider

    module.suppress_debug_info = True
    module.telemetry = False
    module.disable_hf_tokenizer_download = True
    module.disable_streaming_logging = True
    module.num_retries = 0
    # A stream of many equal chunks is an answer like any other.
    module.REPEATED_STREAMING_CHUNK_LIMIT = 1_000_000
    module.custom_provider_map.append({"provider": "demo", "custom_handler": DemoProvider()})
    module.utils.custom_llm_setup()
    return module
