"""Which config a call goes to, and why: sticky first, else weighted random among those that can be used."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from ..conf import conf
from ..errors import AllConfigsUnavailable, LLMConfigsNotAvailable, ToolsNotEnabled
from ..types import ConfigChoice
from .classes import LiteLLMConfig, LLMConfig
from .cooldown import PROBE_ENDS_SOON, Cooling, Standing, standing, take_probe
from .load import get_configs

# What a worker does before and after a call, in seconds: so much longer than the call may take is a probe its own.
PROBE_MARGIN = 5.0


def bare_model(model: str) -> LLMConfig:
    """A config for a litellm model id that no YAML file describes; litellm takes its key from the environment."""
    return LiteLLMConfig({"name": model, "model": model})


class Chooser(Protocol):
    """The part of `random.Random` that is used; pass a seeded one to repeat a choice."""

    def choices(self, population: Sequence[str], weights: Sequence[float]) -> list[str]: ...


def choose(
    names: Iterable[str],
    *,
    sticky: str | None = None,
    exclude: Collection[str] | Mapping[str, str] = frozenset(),
    needs_tools: bool = False,
    probe: bool = False,
    any_model: bool = False,
    rng: Chooser = random,
) -> tuple[ConfigChoice, dict[str, Any]]:
    """Choose one of the configs `names`, and say why as a route that can be stored as JSON.

    `sticky` (the config the chat used last) wins where it can be used; the others are drawn by weight, those
    of weight 0 only where no other is left. `exclude` holds the configs that failed in this turn, as names
    or as name -> reason. The route is `{"chosen", "why", "candidates": {name: weight}, "skipped": {name:
    reason}}`. With `any_model` a name that no config has is taken as a litellm model id.

    A config that rested and has not answered since is given to one worker at a time. `probe` says that the caller
    is about to call the model. Then the route may have `"probe": True`, and the caller must tell how the call ended:
    `clear`, `cool` or `release`.

    Raises LLMConfigsNotAvailable where no config is named or loaded, ToolsNotEnabled where `needs_tools` and
    all have `tools_enabled: false`, and AllConfigsUnavailable where all others failed in this turn or are
    cooling.
    """
    names = list(dict.fromkeys(names))
    if not names:
        raise LLMConfigsNotAvailable(
            "No LLM configs available. The prompt names none: choose some for it (llm_config_names)."
        )
    configs = get_configs()
    loaded = {name: configs[name] for name in names if name in configs}
    if any_model:
        loaded |= {name: bare_model(name) for name in names if name not in loaded}
    skipped = {name: configs.why_missing(name) for name in names if name not in loaded}
    if not loaded:
        raise LLMConfigsNotAvailable(
            f"No LLM configs available. {_listed(skipped)} Put the YAML files into LLM_CONFIGS_PATH and run "
            "`manage.py check`."
        )
    if needs_tools:
        loaded = _with_tools(loaded, skipped)
    found = standing(loaded)
    usable = _usable(loaded, found.cooling, exclude, skipped)
    while usable:
        name, why = _draw(usable, sticky, rng)
        probing = _probing(usable[name], found) if probe else "open"
        if probing != "busy":
            break
        found.cooling[name] = Cooling(PROBE_ENDS_SOON, found.unproven[name], probed=True)
        del usable[name]
        skipped[name] = _why_cooling(found.cooling[name])
    else:
        raise _all_unavailable(found, skipped)
    if sticky is not None and sticky not in names:
        skipped[sticky] = "no longer a config of the prompt"
    route: dict[str, Any] = {
        "chosen": name,
        "why": why,
        "candidates": {other: config.weight for other, config in usable.items()},
        "skipped": skipped,
    }
    if probing == "taken":
        route["probe"] = True
    return usable[name].choice(), route


def _probing(config: LLMConfig, found: Standing) -> str:
    if config.name not in found.unproven:
        return "open"
    longest = config.choice().timeout or conf.call_timeout
    return take_probe(config.name, seconds=longest + PROBE_MARGIN, reason=found.unproven[config.name])


def _with_tools(loaded: dict[str, LLMConfig], skipped: dict[str, str]) -> dict[str, LLMConfig]:
    able = {name: config for name, config in loaded.items() if config.tools_enabled}
    skipped |= dict.fromkeys(loaded.keys() - able.keys(), "tools_enabled is false")
    if not able:
        raise ToolsNotEnabled(
            f"Tools not enabled in LLM config but used in LLM prompt. {_listed(skipped)} "
            "Set `tools_enabled: true` where the model can use tools, or give the prompt another config."
        )
    return able


def _usable(
    loaded: Mapping[str, LLMConfig],
    resting: Mapping[str, Cooling],
    exclude: Collection[str] | Mapping[str, str],
    skipped: dict[str, str],
) -> dict[str, LLMConfig]:
    usable = {}
    for name, config in loaded.items():
        if name in exclude:
            reason = exclude[name] if isinstance(exclude, Mapping) else ""
            skipped[name] = f"failed in this turn: {reason}" if reason else "failed in this turn"
        elif name in resting:
            skipped[name] = _why_cooling(resting[name])
        else:
            usable[name] = config
    return usable


def _why_cooling(rest: Cooling) -> str:
    what = "being probed" if rest.probed else f"cooling for {math.ceil(rest.seconds_left)} s"
    return f"{what} after {rest.reason}" if rest.reason else what


def _draw(usable: Mapping[str, LLMConfig], sticky: str | None, rng: Chooser) -> tuple[str, str]:
    if sticky is not None and sticky in usable:
        return sticky, "sticky"
    weighted = {name: config.weight for name, config in usable.items() if config.weight > 0}
    if len(usable) == 1:
        return next(iter(usable)), "only one left"
    if not weighted:
        return rng.choices(list(usable), [1.0] * len(usable))[0], "last resort: all have weight 0"
    if len(weighted) == 1:
        return next(iter(weighted)), "only one with a weight"
    return rng.choices(list(weighted), list(weighted.values()))[0], "weighted random"


def _all_unavailable(found: Standing, skipped: Mapping[str, str]) -> AllConfigsUnavailable:
    # One that failed in this turn may have rested already: its next call is a probe, which may be made at once.
    left = dict.fromkeys(found.unproven, PROBE_ENDS_SOON)
    left |= {name: rest.seconds_left for name, rest in found.cooling.items()}
    soonest = min(left.values()) if left else None
    advice = "Add a config" if soonest is None else f"Try again in {math.ceil(soonest)} s, or add a config"
    return AllConfigsUnavailable(
        f"All LLM configs are unavailable. {_listed(skipped)} {advice} to the prompt.",
        cooling=left,
        retry_after=soonest,
    )


def _listed(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name[:100]}: {reason}" for name, reason in reasons.items()) + "."
