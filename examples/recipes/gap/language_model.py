"""Unpacks a quantised language model: `python -m examples.recipes.gap.language_model FILE.gguf FOLDER`.

FOLDER holds it then in transformers' layout, in bfloat16. It needs the package `gguf`.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def unpack(file: Path, out: Path) -> None:
    """Write the weights and the tokenizer of a GGUF file as transformers reads them without it.

    Raises
    ------
    ValueError, OSError
        transformers reads no such file.
    """
    import torch
    from safetensors.torch import save_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    given = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **given)
    model = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.bfloat16, **given)
    out.mkdir(parents=True, exist_ok=True)
    config = model.config
    # What is written is quantised no longer; transformers would refuse to write it as that.
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    config.save_pretrained(out)
    tokenizer.save_pretrained(out)
    save_model(model, str(out / "model.safetensors"), metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        unpack(options.file, options.folder)
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"language_model: {' '.join(str(error).split())[:300]}") from None
    print(f"language model: {options.folder}")


if __name__ == "__main__":
    main()
