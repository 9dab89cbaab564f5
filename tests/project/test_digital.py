"""Identity, and encoded errors on digital projections."""

import copy
import pickle

import pytest
import torch

from odfa.encode import Ternary
from odfa.errors import ConfigError
from odfa.flow import Light
from odfa.keys import torch_generator
from odfa.opu import Twin
from odfa.project import Encoded, Gaussian, Hadamard, Identity, Optical, Rademacher


def rows(num_samples: int, num_inputs: int) -> torch.Tensor:
    return torch.randn(num_samples, num_inputs, generator=torch_generator(2))


def test_identity_gives_the_error_back():
    identity = Identity().shaped(5, 5)
    e_ND = rows(3, 5)
    assert torch.equal(identity.project(e_ND), e_ND)
    assert identity.project(e_ND).data_ptr() != e_ND.data_ptr()
    assert torch.equal(e_ND @ identity.matrix(), e_ND)
    assert identity.cost(7) == identity.spent == Light()


def test_identity_explains_other_widths():
    with pytest.raises(ConfigError, match="share one slice") as told:
        Identity().shaped(10, 64)
    # from Python and from a run, whose settings have no error_at
    assert all(advice in str(told.value) for advice in ("shared=True", "rule.shared=true", "projection=gaussian"))


def test_encoded_projects_the_code():
    e_ND = rows(40, 6)
    encoded = Encoded(Gaussian(1), Ternary("relative_max")).shaped(6, 11)
    code_ND = Ternary("relative_max").encode(e_ND).values().double()
    expected_NM = code_ND @ Gaussian(1).shaped(6, 11).matrix().double()
    torch.testing.assert_close(encoded.project(e_ND).double(), expected_NM, atol=1e-5, rtol=1e-5)
    assert encoded.diagnostics["density"] == pytest.approx((code_ND != 0).double().mean().item())


def test_encoded_skips_dark_rows():
    e_ND = rows(30, 6)
    e_ND[::2] = 0
    whole, lit_only = (Encoded(Gaussian(1), Ternary(seed=1)).shaped(6, 4) for _ in range(2))
    p_NM = whole.project(e_ND)
    assert not p_NM[::2].any()
    assert torch.equal(p_NM[1::2], lit_only.project(e_ND[1::2]))
    assert not whole.project(torch.zeros(3, 6)).any()
    assert whole.project(torch.zeros(0, 6)).shape == (0, 4)


def test_encoded_state_continues_bit_for_bit():
    e_ND = rows(9, 20)
    encoded = Encoded(Gaussian(1), Ternary(seed=1)).shaped(20, 4)
    encoded.project(e_ND)
    resumed = Encoded(Gaussian(1), Ternary(seed=1)).shaped(20, 4)
    resumed.load_state_dict(encoded.state_dict())
    others = [resumed, copy.deepcopy(encoded), pickle.loads(pickle.dumps(encoded))]
    second_NM = encoded.project(e_ND)
    assert all(torch.equal(other.project(e_ND), second_NM) for other in others)
    assert not torch.equal(encoded.project(e_ND), second_NM)


def test_encoded_identity_names_both():
    identities = {
        Encoded(Gaussian(seed), Ternary(quantiser)).shaped(6, 4).identity
        for seed in (0, 1)
        for quantiser in ("stochastic", "sampled")
    }
    assert len(identities) == 4


@pytest.mark.parametrize(
    "projection",
    [
        Gaussian(),
        Identity(),
        Encoded(Gaussian(), Ternary()),
        Optical(Twin()),
        Optical(Twin.ideal(), encoder=Ternary("sampled")),
    ],
    ids=repr,
)
def test_every_projection_copies_pickles_and_keeps_its_identity(projection):
    for shaped in (projection, projection.shaped(6, 6)):
        for other in (copy.deepcopy(shaped), pickle.loads(pickle.dumps(shaped))):
            assert other.identity == shaped.identity
    shaped = projection.shaped(6, 6)
    other = pickle.loads(pickle.dumps(shaped))
    e_ND = rows(5, 6)
    assert torch.equal(other.project(e_ND), shaped.project(e_ND))
    assert (projection.num_inputs, projection.num_outputs) == (None, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("num_inputs", [6, 300])  # few inputs are multiplied with a stored matrix
@pytest.mark.parametrize(
    "projection", [Gaussian(), Gaussian(stored=False), Hadamard(), Rademacher(), Identity()], ids=repr
)
def test_what_is_projected_stays_on_the_device_of_the_rows(projection, num_inputs, dtype):
    num_outputs = num_inputs if isinstance(projection, Identity) else 700
    shaped, e_ND = projection.shaped(num_inputs, num_outputs), rows(5, num_inputs).to(dtype)
    near_NM = shaped.project(e_ND)
    there_NM = shaped.project(e_ND.to("meta"))
    assert (there_NM.is_meta, there_NM.shape, there_NM.dtype) == (True, near_NM.shape, near_NM.dtype)
    assert torch.equal(shaped.project(e_ND), near_NM)  # the matrix comes back with the rows
