"""A tiny SDXL and an adapter of random weights, in the formats of the full-size ones."""

from __future__ import annotations

from pathlib import Path

from tests.generators.tiny_pipelines import clip_config
from tests.generators.tiny_tokenizers import clip_tokenizer


def sdxl(
    folder: Path, force_upcast: bool = True, variant: str | None = None, channels: int = 4
) -> Path:
    """An SDXL that draws 64 x 64 pixels by 8 x 8 latents."""
    import torch
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer(folder / "made" / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        text_config = clip_config(tokenizer)
        unet = UNet2DConditionModel(
            block_out_channels=(32, 64),
            layers_per_block=1,
            sample_size=8,
            in_channels=channels,
            out_channels=channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 1),
            projection_class_embeddings_input_dim=6 * 8 + 32,
            cross_attention_dim=64,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(
            block_out_channels=(16, 16, 16, 16),
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=channels,
            norm_num_groups=8,
            sample_size=64,
            force_upcast=force_upcast,
        )
        pipe = StableDiffusionXLPipeline(
            vae=vae,
            text_encoder=CLIPTextModel(text_config),
            text_encoder_2=CLIPTextModelWithProjection(text_config),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=unet,
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
            ),
            add_watermarker=False,
        )
    pipe.save_pretrained(folder, safe_serialization=True, variant=variant)
    return folder


def ip_adapter(folder: Path, unet_folder: Path) -> Path:
    """An adapter for the SDXL above, laid out as h94/IP-Adapter is."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    unet = UNet2DConditionModel.from_pretrained(unet_folder, subfolder="unet")
    width, tokens = 64, 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        weights = {
            "image_proj.proj.weight": torch.randn(tokens * width, 32) * 0.3,
            "image_proj.proj.bias": torch.randn(tokens * width) * 0.3,
            "image_proj.norm.weight": torch.ones(width),
            "image_proj.norm.bias": torch.zeros(width),
        }
        number = 1
        for name in unet.attn_processors:
            if name.endswith("attn1.processor"):
                continue
            layer = unet.get_submodule(name.removesuffix(".processor"))
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{number}.{part}.weight"] = (
                    torch.randn(layer.inner_dim, width) * 0.3
                )
            number += 2
        encoder = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=32,
                intermediate_size=37,
                num_hidden_layers=2,
                num_attention_heads=4,
                image_size=32,
                patch_size=8,
                projection_dim=32,
            )
        )
    (folder / "sdxl_models").mkdir(parents=True, exist_ok=True)
    save_file(weights, str(folder / "sdxl_models" / "ip-adapter_sdxl.safetensors"))
    encoder.save_pretrained(folder / "sdxl_models" / "image_encoder", safe_serialization=True)
    return folder
