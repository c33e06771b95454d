"""Merge low-rank changes (LoRA, Hu et al. 2022) into the weights of a pipeline.

Merged once when the model is loaded, they cost nothing afterwards, and need no library of their own.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generators.diffusion_settings import LoraSettings

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# The two factors of a layer's change, down to the rank and up again, as trainers name them.
_FACTOR = re.compile(
    r"(?P<layer>.+?)\.(?P<which>lora_A|lora_B|lora_down|lora_up|lora\.down|lora\.up)"
    r"(?:\.default)?\.weight"
)
# The layer's place within the attention, as diffusers wrote it at first.
_PROCESSOR = re.compile(r"\.processor\.(to_\w+)_lora\.(down|up)\.weight$")
_DOWN = ("lora_A", "lora_down", "lora.down")


def merge_lora(pipe: Any, settings: LoraSettings, paths: Mapping[str, Path]) -> None:
    """Add ``weight`` times the change to every layer of the pipeline that a file names.

    Raises
    ------
    ValueError
        When the file holds something else, or layers that the pipeline doesn't have.
    """
    folder = Path(paths["lora"])
    available = [path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors")]
    file = folder / settings.file(available)
    layers, scales = _read(pipe, file)
    for name, factors in layers.items():
        if set(factors) != {"down", "up"}:
            raise ValueError(f"lora {file.name}: layer {name} has no two factors")
        layer = _layer(pipe, name)
        if layer is None:
            raise ValueError(f"lora {file.name}: {type(pipe).__name__} has no layer {name}")
        _merge(layer, factors["down"], factors["up"], settings.weight * scales.get(name, 1.0), name)
    logger.info("merged %d layers of lora %s", len(layers), settings.model)


def _read(pipe: Any, file: Path) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, float]]:
    """The factors of every layer, and what each product is scaled by where the file says so."""
    from safetensors.torch import load_file

    convert = getattr(pipe, "lora_state_dict", None)
    if convert is None:
        raise ValueError(f"lora: {type(pipe).__name__} takes none")
    extra = {"unet_config": pipe.unet.config} if getattr(pipe, "unet", None) is not None else {}
    found = convert(load_file(file), **extra)
    weights, alphas = found if isinstance(found, tuple) else (found, None)
    layers: dict[str, dict[str, torch.Tensor]] = {}
    scales: dict[str, float] = {}
    for key, value in weights.items():
        plain = _PROCESSOR.sub(
            lambda m: f".{'to_out.0' if m[1] == 'to_out' else m[1]}.lora.{m[2]}.weight", key
        )
        match = _FACTOR.fullmatch(plain)
        if match is None:
            if plain.endswith(".alpha"):
                scales[plain.removesuffix(".alpha")] = float(value)
                continue
            raise ValueError(f"lora {file.name}: {key} is no low-rank change of a weight")
        which = "down" if match["which"] in _DOWN else "up"
        layers.setdefault(match["layer"], {})[which] = value
    for key, alpha in (alphas or {}).items():
        scales[_FACTOR.sub(r"\g<layer>", key).removesuffix(".alpha")] = float(alpha)
    own = _alpha_of_file(file)
    for name, factors in layers.items():
        alpha = scales.get(name, own)
        if "down" in factors and alpha is not None:
            scales[name] = alpha / factors["down"].shape[0]
    return layers, scales


def _alpha_of_file(file: Path) -> float | None:
    """The alpha that a file's header gives for all of its layers."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as held:
        told = json.loads((held.metadata() or {}).get("lora_adapter_metadata", "{}"))
    found = {value for name, value in told.items() if name.endswith("lora_alpha")}
    patterns = [name for name, value in told.items() if name.endswith("alpha_pattern") and value]
    if len(found) > 1 or patterns:
        raise ValueError(f"lora {file.name}: layers have alphas of their own, which is not read")
    return float(found.pop()) if found else None


def _layer(pipe: Any, name: str) -> Any:
    """A layer by its name, whose first part is that of a component."""
    part, _, place = name.partition(".")
    component: Any = getattr(pipe, part, None)
    try:
        return component.get_submodule(place)
    except AttributeError:
        return None


def _merge(layer: Any, down: torch.Tensor, up: torch.Tensor, scale: float, name: str) -> None:
    """Add ``scale`` times the product to the weight of a linear or convolutional layer."""
    import torch

    weight = layer.weight
    with torch.no_grad():
        change = up.float().flatten(1) @ down.float().flatten(1)
        if change.numel() != weight.numel():
            raise ValueError(
                f"lora: layer {name} has {tuple(weight.shape)} weights, and its change"
                f" {tuple(change.shape)}"
            )
        weight += (scale * change).reshape(weight.shape).to(weight)
