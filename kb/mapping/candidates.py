"""The candidates of the contest of mappings: their names, and what each name stands for."""

from __future__ import annotations

from collections.abc import Mapping

from kb.device import resolve_device
from kb.mapping.attended import Attended, External
from kb.mapping.regressors import Regressor, Start
from kb.mapping.ridge import Ridge
from kb.mapping.settings import MappingSettings
from kb.mapping.shared_mlp import Blend, SharedMLP

CANDIDATES = ("start", "ridge", "blend", "mlp", "attended")
# Those that may be fitted to external pairs too, and the weights of these that the contest tries.
LINEAR = ("ridge", "attended")
EXTERNAL_WEIGHTS = (0.3, 1.0)


def names(settings: MappingSettings, external: External | None) -> tuple[str, ...]:
    """The candidates that the settings leave open, a simpler one before those that build on it."""
    method, weight = settings.method, settings.external
    own = CANDIDATES if method == "auto" else (method,)
    if external is None or weight == 0:
        return own
    if weight != "auto":
        return tuple(f"{name}+{weight:g}" if name in LINEAR else name for name in own)
    linear = [name for name in LINEAR if name in own]
    return (*own, *(f"{name}+{tried:g}" for name in linear for tried in EXTERNAL_WEIGHTS))


def make(
    name: str,
    settings: MappingSettings,
    device: str,
    external: External | None,
    fitted: Mapping[str, Regressor],
) -> Regressor:
    """The regressor of this name, to be fitted; it may share one that was fitted to the same pairs."""
    kind, _, weighed = name.partition("+")
    weight = float(weighed or 0)
    if kind == "start":
        return Start()
    if kind == "ridge":
        return Ridge(external.moments.scaled(weight) if weight and external else None)
    if kind == "attended":
        ridge = fitted.get(name.replace("attended", "ridge"))
        return Attended(external, weight, ridge if isinstance(ridge, Ridge) else None)
    network = Blend if kind == "blend" else SharedMLP
    return network(**settings.network(), device=resolve_device(device))


def tier(name: str) -> int:
    """0 for what is fitted to internal pairs alone, 1 with external ones, 2 with attention."""
    return 2 if name.startswith("attended") else int("+" in name)
