"""Networks of the recipes: what they say of their error rows is what the engine sees, and their parts add up."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from odfa.data import DataShape
from odfa.error import error_rows, find_tap
from odfa.errors import ConfigError
from odfa.session import MemorySettings
from odfa.session.memory import new_weights
from odfa.tasks.climate.vit import FieldVitNetwork, to_fields
from odfa.tasks.diffusion.denoiser import DitNetwork, UnetNetwork
from odfa.tasks.diffusion.diffuse import Diffuse
from odfa.tasks.language.transformer import Gpt2Network, LlamaNetwork
from odfa.tasks.vision.cnn import CnnNetwork
from odfa.tasks.vision.mlp import MlpNetwork
from odfa.tasks.vision.vit import VitNetwork

IMAGES = DataShape(
    num_features=2 * 16 * 16, num_classes=5, num_train=8, num_validation=8, num_test=8, image=(2, 16, 16)
)
FIELDS = replace(IMAGES, num_classes=0, field=(3, 16, 16))
TOKENS = replace(IMAGES, num_features=12, num_classes=40, image=None)
VIT = VitNetwork(patch=4, width=12, layers=2, heads=3)
CASES = {
    "mlp": (MlpNetwork(widths=(6, 7)), IMAGES),
    "cnn": (CnnNetwork(width=6, layers=2, stride=4), IMAGES),
    "cnn, odd stride": (CnnNetwork(width=6, layers=2, stride=3), IMAGES),
    "gpt2": (Gpt2Network(width=8, layers=2, heads=2), TOKENS),
    "llama": (LlamaNetwork(width=8, layers=2, heads=2), TOKENS),
    "vit, mean": (VIT, IMAGES),
    "vit, token": (replace(VIT, pooling="cls"), IMAGES),
    "vit, fields": (FieldVitNetwork(patch=4, width=12, layers=2, heads=3), FIELDS),
    "dit": (DitNetwork(patch=4, width=12, layers=2, heads=3), IMAGES),
    "unet": (UnetNetwork(channels=(4, 8), groups=2), IMAGES),
    "unet, three stages": (UnetNetwork(channels=(4, 4, 8), groups=2), IMAGES),
}


@pytest.mark.parametrize("case", CASES)
def test_error_rows_and_signals_have_the_sizes_that_the_network_names(case: str) -> None:
    config, shape = CASES[case]
    network = config
    model = network.build(shape)
    modules = dict(model.named_modules())
    blocks = [modules[name] for name in config.blocks]
    seen: dict[torch.nn.Module, torch.Tensor] = {}

    def keep(module, _inputs, output):
        seen[module] = output[0] if isinstance(output, tuple) else output

    tap = find_tap(model, "logits", blocks).module
    for module in (tap, *blocks):
        module.register_forward_hook(keep)
    model(*network.example(shape, 3))
    e_ND = error_rows(seen[tap], "logits").e_ND
    assert e_ND.shape == (3 * network.num_rows(shape), network.num_outputs(shape))
    per_token = seen[tap].ndim == 3
    widths = [seen[block][0, 0].numel() if per_token else seen[block][0].numel() for block in blocks]
    if case not in ("vit, mean", "vit, token"):  # one row for an image whose tokens share the signal
        assert tuple(widths) == network.signal_widths(shape)
    assert all(name in modules for name in (*config.branches, *config.linears))


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 99)
)
def test_patches_become_fields_pixel_by_pixel(n: int, channels: int, rows: int, columns: int, patch: int, seed: int):
    size = (channels, rows * patch, columns * patch)
    field_NCHW = torch.randn(n, *size, generator=torch.Generator().manual_seed(seed))
    patches = [
        field_NCHW[:, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].flatten(1)
        for r in range(rows)
        for c in range(columns)
    ]
    assert torch.equal(to_fields(torch.stack(patches, dim=1), size, patch), field_NCHW.flatten(1))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_vit_reads_classes_from_what_it_says(pooling: str) -> None:
    torch.manual_seed(0)
    model = replace(VIT, pooling=pooling).build(IMAGES).double().eval()
    x_ND = torch.randn(4, IMAGES.num_features, dtype=torch.float64)
    tokens_NTK = model.backbone(pixel_values=x_ND.view(4, 2, 16, 16)).last_hidden_state
    read_NK = tokens_NTK[:, 0] if pooling == "cls" else sum(tokens_NTK[:, t] for t in range(1, 17)) / 16
    assert torch.allclose(model(x_ND), read_NK @ model.head.weight.T + model.head.bias, atol=1e-12)


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (replace(VIT, patch=5), IMAGES, "network.patch: expected a divisor of 16 and 16"),
        (VIT, TOKENS, "needs images"),
        (CnnNetwork(), TOKENS, "needs images"),
        (DitNetwork(patch=3), IMAGES, "network.patch: expected square images and a divisor"),
        (DitNetwork(patch=4), replace(IMAGES, image=(2, 8, 32)), "got 8 x 32"),
        (UnetNetwork(channels=(8, 8, 8, 8, 8, 8)), IMAGES, "cannot be halved 5 times"),
        (DitNetwork(), TOKENS, "needs images"),
    ],
)
def test_networks_that_do_not_fit_the_images_are_refused(config, shape, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.build(shape)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: VitNetwork(heads=3),
        lambda: VitNetwork(patch=0),
        lambda: CnnNetwork(stride=0),
        lambda: DitNetwork(width=10, heads=4),
        lambda: Diffuse(drop_class=1.0),
        lambda: Diffuse(timesteps=0),
        lambda: UnetNetwork(channels=(9,)),
        lambda: UnetNetwork(channels=()),
    ],
)
def test_settings_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(ConfigError, match=r"^(width|patch|stride|drop_class|timesteps|channels): expected "):
        wrong()


@pytest.mark.parametrize("case", CASES)
def test_a_network_in_bfloat16_takes_data_in_float32(case: str) -> None:
    config, shape = CASES[case]
    network = config
    with new_weights(MemorySettings(precision="bfloat16")):
        half = network.build(shape).eval()
    whole = network.build(shape).eval()
    whole.load_state_dict({name: weight.float() for name, weight in half.state_dict().items()})
    inputs = tuple(torch.randn_like(x) if x.is_floating_point() else x for x in network.example(shape, 3))
    with torch.no_grad():
        found, expected = (getattr(out, "logits", out) for out in (half(*inputs), whole(*inputs)))
    assert torch.allclose(found.float(), expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))
