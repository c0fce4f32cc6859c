"""What a locator is taught by."""

import pytest
import torch

from wys.training.latents import Batch
from wys.training.locator import MixSettings, mix_loss


def batch_of(before: torch.Tensor, after: torch.Tensor, changed: torch.Tensor) -> Batch:
    one, none = len(before), torch.zeros(len(before), 1).long()
    blank = torch.zeros_like(changed)
    return Batch(
        before,
        after,
        changed,
        blank,
        *(none,) * 3,
        blank,
        *(none,) * 3,
        target=none[:, 0],
        naming=none[:, 0],
        tokens=none,
        kinds=["add"] * one,
    )


def test_the_best_answer_is_the_share_of_the_edit_that_is_worth_taking():
    """Least squares: of an edit d, where a is wanted, <d, a> / <d, d>; none of it outside."""
    draw = torch.Generator().manual_seed(4)
    before, edit = (torch.randn(1, 3, 2, 2, generator=draw) for _ in range(2))
    after = before + 0.4 * (edit - before) + 0.1 * torch.randn(1, 3, 2, 2, generator=draw)
    changed = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    after = torch.where(changed > 0, after, before)
    scale = 0.5
    batch = batch_of(before / scale, after / scale, changed)
    answer = torch.zeros(1, 1, 2, 2, requires_grad=True)
    descent = torch.optim.LBFGS([answer], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        descent.zero_grad()
        loss, _ = mix_loss(answer, edit, batch, scale, MixSettings())
        loss.backward()
        return loss

    descent.step(closure)
    step, wanted = edit - before, after - before
    expected = ((step * wanted).sum(1) / step.square().sum(1)).clamp(0, 1)
    torch.testing.assert_close(answer.detach().sigmoid()[:, 0], expected, atol=0.02, rtol=0)
    assert (expected[..., 0] > 0.1).all() and (expected[..., 1] == 0).all()


def test_either_side_counts_by_its_own_mean_and_weight():
    before, after = torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)
    changed = torch.zeros(2, 1, 3, 3)
    changed[0, :, 0, 0] = 1
    after[0, :, 0, 0] = 2
    batch, edit = batch_of(before, after, changed), torch.full((2, 4, 3, 3), 1.0)
    all_of_it = torch.full((2, 1, 3, 3), 50.0)
    loss, parts = mix_loss(all_of_it, edit, batch, 1.0, MixSettings(inside=3, outside=5))
    # Of one pixel, 2 instead of 1; of the seventeen others, 1 instead of 0.
    assert (float(parts["inside"]), float(parts["outside"])) == pytest.approx((1.0, 1.0))
    assert float(loss) == pytest.approx(8.0)
    loss, parts = mix_loss(-all_of_it, edit, batch, 1.0, MixSettings(inside=3, outside=5))
    assert float(loss) == pytest.approx(3 * 4) and float(parts["outside"]) < 1e-9
    # Where nothing is to change, there is no inside.
    nothing = batch_of(before[1:], after[1:], changed[1:])
    loss, parts = mix_loss(all_of_it[1:], edit[1:], nothing, 1.0, MixSettings(inside=3, outside=5))
    assert float(parts["inside"]) == 0 and float(loss) == pytest.approx(5.0)
