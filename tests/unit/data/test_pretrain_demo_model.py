"""Pre-training of the tiny base models: its optimiser is Muon, in float32."""

import pytest
import torch

from sft_atlas.data import pretrain_demo_model


@pytest.mark.parametrize("shape", [(64, 32), (32, 64), (48, 48)])
def test_muon_is_torchs_up_to_its_bfloat16(shape):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    momenta, reference = [torch.zeros(shape)], torch.optim.Muon([theirs], lr=0.03, weight_decay=0.0)
    for _ in range(5):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        pretrain_demo_model.muon_step([ours], momenta, lr=0.03)
        reference.step()
    assert (ours - theirs).norm() < 0.03 * (ours - start).norm()


def test_an_update_has_singular_values_near_one():
    values = torch.linalg.svdvals(pretrain_demo_model.orthogonal(torch.randn(128, 64, generator=torch.Generator().manual_seed(0))))
    assert values.min() > 0.6 and values.max() < 1.25
