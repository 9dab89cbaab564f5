"""Parameters and forward operations of public architectures, against their papers and against counts by hand.

Parameters are the published numbers, to the last one. Operations are written out here, apart from the package: twice
the weights that each token meets, and twice the pairs of tokens times the widths of queries and values. Networks are
walked with two blocks and with three on the meta device, and stretched to their depth as the package stretches GPTs.
"""

import pytest
import torch

from odfa.scaling import walk_module

transformers = pytest.importorskip("transformers")

SAMPLES, TOKENS = 2, 64
PAIRS = SAMPLES * TOKENS**2


def stretched(
    kind, depth, *, head="ForCausalLM", inputs=None, layers="num_hidden_layers", least=2, blocks=None, **sizes
):
    """The walk of a published depth, from two shallow siblings."""
    near, far = (
        walk_module(_model(kind, head, {**sizes, layers: few}), inputs or _ids(), "bp", blocks=blocks)
        for few in (least, least + 1)
    )
    return near.stretched(far, near.depth + (depth - least) * (far.depth - near.depth))


def _ids():
    return (torch.zeros(SAMPLES, TOKENS, dtype=torch.long, device="meta"),)


def _model(kind, head, sizes):
    config = getattr(transformers, f"{kind}Config")(**sizes)
    with torch.device("meta"):
        return getattr(transformers, kind + head)._from_config(config, dtype=torch.bfloat16)


def per_token(layer, depth, *, read_out, attended):
    """2 operations a weight for every token, and 2 a pair of tokens for each number of `attended`, in every layer."""
    return 2 * SAMPLES * TOKENS * (depth * layer + read_out) + 2 * PAIRS * depth * attended


def gpt2(depth, width):
    walk = stretched("GPT2", depth, head="LMHeadModel", layers="n_layer", n_embd=width, n_head=width // 64)
    return walk, per_token(12 * width**2, depth, read_out=50257 * width, attended=2 * width)


def llama(kind, depth, width, mlp, vocabulary, *, keys=None, inner=None, **sizes):
    """Queries and outputs `inner` wide, keys and values `keys`, three matrices of the MLP."""
    inner = inner or width
    keys = keys or inner
    head = sizes.get("head_dim", 128)
    walk = stretched(
        kind,
        depth,
        hidden_size=width,
        intermediate_size=mlp,
        vocab_size=vocabulary,
        num_attention_heads=inner // head,
        num_key_value_heads=keys // head,
        **sizes,
    )
    layer = 2 * width * inner + 2 * width * keys + 3 * width * mlp
    return walk, per_token(layer, depth, read_out=vocabulary * width, attended=2 * inner)


def mixtral():
    """Two of eight experts a token, and the router."""
    walk = stretched("Mixtral", 32)
    layer = 2 * 4096**2 + 2 * 4096 * 1024 + 8 * 4096 + 2 * 3 * 4096 * 14336
    return walk, per_token(layer, 32, read_out=32000 * 4096, attended=2 * 4096)


def qwen3_moe():
    """Qwen3-30B-A3B: heads of 128 that are together wider than the stream, 8 of 128 experts a token."""
    walk = stretched(
        "Qwen3Moe", 48, hidden_size=2048, num_attention_heads=32, num_key_value_heads=4,
        head_dim=128, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768, vocab_size=151936,
        tie_word_embeddings=False,
    )  # fmt: skip
    layer = 2 * 2048 * 4096 + 2 * 2048 * 512 + 128 * 2048 + 8 * 3 * 2048 * 768
    return walk, per_token(layer, 48, read_out=151936 * 2048, attended=2 * 4096)


def olmoe():
    walk = stretched("Olmoe", 16, intermediate_size=1024)
    layer = 4 * 2048**2 + 64 * 2048 + 8 * 3 * 2048 * 1024
    return walk, per_token(layer, 16, read_out=50304 * 2048, attended=2 * 2048)


LATENT = {
    "hidden_size": 2048, "intermediate_size": 10944, "num_attention_heads": 16, "num_key_value_heads": 16,
    "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "moe_intermediate_size": 1408,
    "first_k_dense_replace": 1, "vocab_size": 102400, "n_group": 1, "topk_group": 1, "tie_word_embeddings": False,
}  # fmt: skip
"""DeepSeek-V2-Lite, arXiv 2405.04434, appendix B."""


def deepseek():
    """Queries and keys are 128 + 64 wide, values 128; keys and values come from 512 numbers; the first MLP is dense."""
    walk = stretched("DeepseekV2", 27, **LATENT)
    attention = 2048 * 16 * 192 + 2048 * (512 + 64) + 512 * 16 * (128 + 128) + 16 * 128 * 2048
    experts = 64 * 2048 + 2 * 3 * 2048 * 1408 + 6 * 3 * 2048 * 1408
    weights = 27 * attention + 3 * 2048 * 10944 + 26 * experts + 102400 * 2048
    return walk, 2 * SAMPLES * TOKENS * weights + 2 * PAIRS * 27 * 16 * (192 + 128)


def classic(kind, depth, width, vocabulary, *, mlp=None, keys=None, **sizes):
    """Four matrices of attention and two of the MLP."""
    walk = stretched(kind, depth, vocab_size=vocabulary, **sizes)
    layer = 2 * width**2 + 2 * width * (keys or width) + 2 * width * (mlp or 4 * width)
    return walk, per_token(layer, depth, read_out=vocabulary * width, attended=2 * width)


def bert():
    """The read-out is one more square matrix and the table of words."""
    walk = stretched("Bert", 12, head="ForMaskedLM")
    return walk, per_token(12 * 768**2, 12, read_out=768**2 + 30522 * 768, attended=2 * 768)


def t5():
    """As many tokens in as out; the decoder attends twice."""
    inputs = (*_ids(), torch.ones(SAMPLES, TOKENS, dtype=torch.long), *_ids())
    walk = stretched("T5", 6, head="ForConditionalGeneration", layers="num_layers", inputs=inputs)
    layers = (4 + 8) * 512**2 + 2 * 2 * 512 * 2048
    return walk, per_token(layers, 6, read_out=32128 * 512, attended=3 * 2 * 512)


def vit():
    """ViT-B/16: 196 patches of 16 x 16 x 3 and the class token, whose 768 numbers are read out."""
    images = (torch.empty(SAMPLES, 3, 224, 224, dtype=torch.bfloat16, device="meta"),)
    walk = stretched("ViT", 12, head="ForImageClassification", inputs=images, num_labels=1000)
    patches, read_out = 196 * 768**2, 768 * 1000
    each = 2 * (patches + 197 * 12 * 12 * 768**2 + read_out) + 4 * 12 * 197**2 * 768
    return walk, SAMPLES * each


def resnet():
    """ResNet-50: 1 x 1, 3 x 3, 1 x 1 convolutions; the stride of a stage is in its first 3 x 3."""
    images = (torch.empty(SAMPLES, 3, 224, 224, device="meta"),)
    model = _model("ResNet", "ForImageClassification", {"num_labels": 1000}).float()
    walk = walk_module(model, images, "bp", blocks="resnet.encoder.stages.*")
    weights, incoming, size = 112**2 * 64 * 3 * 49, 64, 56
    for stage, blocks in enumerate((3, 4, 6, 3)):
        narrow = 64 * 2**stage
        wide, before = 4 * narrow, size
        size = 56 // 2**stage
        weights += size**2 * wide * incoming  # the shortcut's projection
        weights += before**2 * incoming * narrow + size**2 * (9 * narrow**2 + narrow * wide)
        weights += (blocks - 1) * size**2 * (2 * narrow * wide + 9 * narrow**2)
        incoming = wide
    return walk, SAMPLES * 2 * (weights + 2048 * 1000)


def convnext():
    """ConvNeXt-T: 7 x 7 convolutions of one channel each, then two matrices, four times as wide between them."""
    images = (torch.empty(SAMPLES, 3, 224, 224, device="meta"),)
    model = _model("ConvNext", "ForImageClassification", {"num_labels": 1000}).float()
    walk = walk_module(model, images, "bp", blocks="convnext.encoder.stages.*")
    widths, sizes = (96, 192, 384, 768), (56, 28, 14, 7)
    weights = 56**2 * 48 * 96 + 768 * 1000
    for stage, blocks in enumerate((3, 3, 9, 3)):
        width = widths[stage]
        weights += sizes[stage] ** 2 * blocks * (49 * width + 8 * width**2)
        if stage:
            weights += sizes[stage] ** 2 * 4 * widths[stage - 1] * width
    return walk, SAMPLES * 2 * weights


GEMMA = {"head_dim": 256, "tie_word_embeddings": True}
ARCHITECTURES = {
    # published parameters, and the walk with the operations counted by hand
    "GPT-2 small": (124_439_808, lambda: gpt2(12, 768)),
    "GPT-2 medium": (354_823_168, lambda: gpt2(24, 1024)),
    "GPT-2 large": (774_030_080, lambda: gpt2(36, 1280)),
    "GPT-2 XL": (1_557_611_200, lambda: gpt2(48, 1600)),
    "Llama 2 7B": (6_738_415_616, lambda: llama("Llama", 32, 4096, 11008, 32000)),
    "Llama 2 13B": (13_015_864_320, lambda: llama("Llama", 40, 5120, 13824, 32000)),
    "Llama 3 8B": (8_030_261_248, lambda: llama("Llama", 32, 4096, 14336, 128256, keys=1024)),
    "Mistral 7B": (7_241_732_096, lambda: llama("Mistral", 32, 4096, 14336, 32000, keys=1024)),
    "Qwen2 7B": (7_615_616_512, lambda: llama("Qwen2", 28, 3584, 18944, 152064, keys=512)),
    "Gemma 2B": (2_506_172_416, lambda: llama("Gemma", 18, 2048, 16384, 256000, keys=256, **GEMMA)),
    "Gemma 7B": (8_537_680_896, lambda: llama("Gemma", 28, 3072, 24576, 256000, inner=4096, **GEMMA)),
    "Mixtral 8x7B": (46_702_792_704, mixtral),
    "Qwen3 30B-A3B": (30_532_122_624, qwen3_moe),
    "OLMoE 1B-7B": (6_919_161_856, olmoe),
    "DeepSeek-V2-Lite": (15_706_484_224, deepseek),
    "Phi-2": (
        2_779_683_840,
        lambda: classic("Phi", 32, 2560, 51200, hidden_size=2560, intermediate_size=10240, num_attention_heads=32),
    ),
    "GPT-NeoX 20B": (20_554_567_680, lambda: classic("GPTNeoX", 44, 6144, 50432)),
    "Pythia 6.9B": (
        6_857_302_016,
        lambda: classic("GPTNeoX", 32, 4096, 50432, hidden_size=4096, intermediate_size=16384, num_attention_heads=32),
    ),
    "OPT 125M": (125_239_296, lambda: classic("OPT", 12, 768, 50272)),
    "OPT 6.7B": (
        6_658_473_984,
        lambda: classic(
            "OPT", 32, 4096, 50272, hidden_size=4096, ffn_dim=16384, num_attention_heads=32, word_embed_proj_dim=4096
        ),
    ),
    "BLOOM 560M": (
        559_214_592,
        lambda: classic("Bloom", 24, 1024, 250880, layers="n_layer", hidden_size=1024, n_head=16),
    ),
    "Falcon 7B": (6_921_720_704, lambda: classic("Falcon", 32, 4544, 65024, keys=64)),
    "BERT base": (109_514_298, bert),
    "T5 small": (60_506_624, t5),
    "ViT-B/16": (86_567_656, vit),
    "ResNet-50": (25_557_032, resnet),
    "ConvNeXt-T": (28_589_128, convnext),
}


PUBLISHED = {
    # multiplications and additions of an image, as torchvision states them
    "ViT-B/16": (17.56e9, lambda walk: walk.forward.flops / 2 / SAMPLES),
    "ResNet-50": (4.09e9, lambda walk: walk.forward.flops / 2 / SAMPLES),
    "ConvNeXt-T": (4.46e9, lambda walk: walk.forward.flops / 2 / SAMPLES),
    # weights that are active for a token, as their papers state them, where most count the table of words
    "Mixtral 8x7B": (12.9e9, lambda walk: _active(walk) + 32000 * 4096),
    "Qwen3 30B-A3B": (3.3e9, lambda walk: _active(walk) + 151936 * 2048),
    "OLMoE 1B-7B": (1.3e9, lambda walk: _active(walk) + 50304 * 2048),
    "DeepSeek-V2-Lite": (2.4e9, lambda walk: _active(walk)),
}


def _active(walk):
    return walk.forward.matmul_flops / 2 / SAMPLES / TOKENS


ALIKE = ("GPT-2 medium", "GPT-2 large", "Llama 2 13B", "Gemma 7B", "Pythia 6.9B", "OPT 125M")
"""Siblings of others, of other sizes."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in ARCHITECTURES]
)
def test_parameters_and_operations_are_those_of_the_paper(name):
    parameters, counted = ARCHITECTURES[name]
    walk, by_hand = counted()
    assert walk.parameters == walk.updated == parameters
    # beyond the count by hand: angles of rotary positions, the product of a frequency and a place
    assert walk.forward.flops == pytest.approx(by_hand, rel=1e-6)
    if name in PUBLISHED:
        figure, found = PUBLISHED[name]
        assert found(walk) == pytest.approx(figure, rel=0.03)
    # a product for each gradient, five for attention's two; none for the gradient of images, which nobody asks for
    products = 2 * walk.forward.matmul_flops + 2.5 * walk.forward.attention_flops
    assert walk.backward.flops == pytest.approx(products, rel=0.06 if name in ("ResNet-50", "ConvNeXt-T") else 0.01)
    assert not walk.estimated
