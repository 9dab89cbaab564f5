"""One table of problems: real architectures, built tiny from config, with a batch, a loss and a choice of blocks."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Problem:
    """A model, a loss on a fixed batch, the blocks to attach to, and what is special about it."""

    build: Callable[[], nn.Module]
    loss: Loss
    blocks: Any
    found: int
    residual: bool = True
    """The aligned head fits: one residual stream ends in a head with a weight matrix of its own."""
    cuts_sides: bool = False
    """Blocks hand on more than their main output (skip connections, position biases)."""
    tied: bool = False
    """The head shares its weight with the embedding."""


IDS = torch.tensor([[5, 3, 9, 7, 2, 8], [4, 4, 1, 6, 9, 3]])
PIXELS = torch.linspace(-1, 1, 2 * 3 * 8 * 8).sin().reshape(2, 3, 8, 8)
LABELS = torch.tensor([1, 2])


class Cnn(nn.Module):
    """Convolutions with batch norm, pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 6, 8]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True), nn.MaxPool2d(2))
            for i, o in pairwise(widths)
        )
        self.head = nn.Linear(8 * 2 * 2, 4)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.head(x.flatten(1))


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(192, 12),
        nn.Tanh(),
        nn.Linear(12, 12),
        nn.Tanh(),
        nn.Linear(12, 12),
        nn.Tanh(),
        nn.Linear(12, 4),
    )


def _gpt2(**changes: Any) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = {
        "n_layer": 3,
        "n_embd": 16,
        "n_head": 2,
        "vocab_size": 11,
        "n_positions": 8,
        "tie_word_embeddings": False,
    }
    dropout = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(**{**settings, **dropout, "bos_token_id": 0, "eos_token_id": 0, **changes}))


def _llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**_DECODER))


def _mixtral() -> nn.Module:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(**_DECODER, num_local_experts=4, num_experts_per_tok=2)
    config._experts_implementation = "eager"  # the grouped kernels know no float64
    return MixtralForCausalLM(config)


_DECODER: dict[str, Any] = {
    "vocab_size": 11,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def _bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=11, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return BertForMaskedLM(config)


def _t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=11, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def _vit() -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=4,
    )  # fmt: skip
    return ViTForImageClassification(config)


def _unet() -> nn.Module:
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )  # fmt: skip


def _dit() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=3, out_channels=3, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, norm_num_groups=4,
    )  # fmt: skip
    for parameter in model.parameters():  # modulation layers start at zero, which would hide every wrong gradient
        nn.init.normal_(parameter, std=0.2)
    nn.init.xavier_normal_(model.proj_out_2.weight)
    return model


def _language_loss(model: nn.Module) -> Tensor:
    return model(input_ids=IDS, labels=IDS).loss


def _classify(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(PIXELS.to(next(model.parameters()).dtype)), LABELS)


def _denoise(model: nn.Module) -> Tensor:
    torch.manual_seed(1)  # class labels are dropped at random in training
    x = PIXELS.to(next(model.parameters()).dtype)
    labels = {} if type(model).__name__ == "UNet2DModel" else {"class_labels": LABELS}
    return (model(x, timestep=torch.tensor([3, 5]), **labels).sample - x.flip(0)).square().mean()


PROBLEMS: dict[str, Problem] = {
    "mlp": Problem(_mlp, _classify, None, 3),
    "cnn": Problem(Cnn, _classify, "stages.*", 2, residual=False),
    "gpt2": Problem(_gpt2, _language_loss, "transformer.h.*", 3),
    "gpt2_tied": Problem(
        lambda: _gpt2(tie_word_embeddings=True), _language_loss, "transformer.h.*", 3, residual=False, tied=True
    ),
    "llama": Problem(_llama, _language_loss, "model.layers.*", 2),
    "mixtral": Problem(_mixtral, _language_loss, "model.layers.*", 2),
    "bert": Problem(_bert, _language_loss, "bert.encoder.layer.*", 2, residual=False, tied=True),
    "t5": Problem(
        _t5, _language_loss, ["encoder.block.*", "decoder.block.*"], 4, residual=False, cuts_sides=True, tied=True
    ),
    "vit": Problem(_vit, lambda m: m(pixel_values=PIXELS.to(m.dtype), labels=LABELS).loss, None, 2),
    "unet": Problem(_unet, _denoise, ["down_blocks.*", "mid_block", "up_blocks.*"], 5, residual=False, cuts_sides=True),
    "dit": Problem(_dit, _denoise, "transformer_blocks.*", 2),
}


def make(name: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, Problem]:
    """The named problem with a model of fixed random weights, in training mode."""
    torch.manual_seed(0)
    problem = PROBLEMS[name]
    return problem.build().to(dtype).train(), problem


def gradients(model: nn.Module, loss: Loss) -> dict[str, Tensor | None]:
    """Gradients of one fresh backward pass, by name."""
    model.zero_grad(set_to_none=True)
    loss(model).backward()
    return {name: p.grad for name, p in model.named_parameters()}
