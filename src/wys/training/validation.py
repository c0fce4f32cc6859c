"""What is measured while the denoiser trains, on a fixed batch with fixed noise."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wys.seeds import normal
from wys.training.denoiser import Heads, LossSettings, Noised, diffusion_loss, noised
from wys.training.latents import Batch
from wys.training.triplets import NAMINGS

Predict = Callable[[Noised], Float[Tensor, "b k h w"]]
"""The UNet's output channels for a noised batch."""

GROUNDING_TIMESTEP = 800
"""Where the relevance map of the method looks."""


def object_means(
    values: Float[Tensor, "b h w"], coverage: Float[Tensor, "b slots h w"]
) -> Float[Tensor, "b slots"]:
    """The mean value over each object's area; -inf where there is no object."""
    area = coverage.sum(dim=(2, 3))
    means = (values[:, None] * coverage).sum(dim=(2, 3)) / area.clamp(min=1e-6)
    return means.masked_fill(area < 0.5, -torch.inf)


def grounded(
    values: Float[Tensor, "b h w"],
    coverage: Float[Tensor, "b slots h w"],
    target: Int[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """1 where the named object has a higher mean than all others; meaningless at target 0."""
    means = object_means(values, coverage)
    index = (target.clamp(min=1) - 1)[:, None]
    rival = means.scatter(1, index, -torch.inf).amax(dim=1)
    return (means.gather(1, index)[:, 0] > rival).float()


def iou(prediction: Float[Tensor, "b h w"], truth: Float[Tensor, "b h w"]) -> Float[Tensor, " b"]:
    """Intersection over union of both maps where they exceed one half."""
    a, b = prediction > 0.5, truth > 0.5
    return (a & b).sum(dim=(1, 2)) / (a | b).sum(dim=(1, 2)).clamp(min=1)


def validate(
    predict: Predict,
    batch: Batch,
    scale: float,
    alphas: Float[Tensor, "1000"],
    null_tokens: Int[Tensor, " length"],
    losses: LossSettings,
) -> dict[str, float]:
    """Figures of the averaged weights.

    Keys: validation_clean (diffusion loss), validation_edit (the same where the noised latent is
    the input's, at the timesteps that an edit begins with), change_iou; grounding of the change
    head, of the target head and of |z0(image, text) - z0(image, none)|, and of choosing at random.
    Maps are made as for an edit: from the input's latent, at timestep 800.
    """
    count, latent = batch.after.shape[:2]
    device = batch.after.device
    spread = (torch.arange(count, device=device) * 389) % 1000
    given = fixed_noise(batch, scale, spread, alphas, null_tokens, with_text=True)
    clean = in_parts(predict, given)[:, :latent]
    begun = fixed_noise(
        batch, scale, 900 + spread // 10, alphas, null_tokens, with_text=True, from_input=True
    )
    edited = in_parts(predict, begun)[:, :latent]
    change, target, difference = grounding_maps(predict, batch, scale, alphas, null_tokens)
    figures = {
        "validation_clean": float(
            diffusion_loss(clean, given.clean, batch.changed, losses.changed_weight)
        ),
        "validation_edit": float(
            diffusion_loss(edited, begun.clean, batch.changed, losses.changed_weight)
        ),
        "change_iou": float(iou(change, batch.changed[:, 0]).mean()),
    }
    local = (batch.target > 0) & torch.tensor(
        [kind not in ("add", "absent") for kind in batch.kinds], device=device
    )
    if not batch.labelled or not local.any():
        return figures
    maps = {"head": change, "target_head": target, "difference": difference}
    for name, values in maps.items():
        right = grounded(values, batch.coverage, batch.target)
        figures[f"grounding_{name}"] = float(right[local].mean())
        if name == "target_head":
            continue
        figures.update(by_kind(f"grounding_{name}", right, local, batch.kinds))
        names = [NAMINGS[number] for number in batch.naming.tolist()]
        figures.update(by_kind(f"grounding_{name}_by", right, local, names))
    objects = (batch.coverage.sum(dim=(2, 3)) >= 0.5).sum(1).clamp(min=1)
    figures["grounding_chance"] = float((1 / objects)[local].mean())
    return figures


def by_kind(
    name: str, values: Float[Tensor, " b"], chosen: Tensor, kinds: Sequence[str]
) -> dict[str, float]:
    """The mean of the chosen items of each kind, as NAME/KIND."""
    present = sorted({kind for kind, keep in zip(kinds, chosen.tolist(), strict=True) if keep})
    figures = {}
    for kind in present:
        of_kind = torch.tensor([k == kind for k in kinds], device=values.device) & chosen
        figures[f"{name}/{kind}"] = float(values[of_kind].mean())
    return figures


def fixed_noise(
    batch: Batch,
    scale: float,
    timestep: Int[Tensor, " b"],
    alphas: Float[Tensor, "1000"],
    null_tokens: Int[Tensor, " length"],
    *,
    with_text: bool,
    from_input: bool = False,
) -> Noised:
    """The batch with the noise that every validation uses, and the image given."""
    count = batch.after.shape[0]
    noise = normal(tuple(batch.after.shape[1:]), 0, range(count), "validation noise")
    everywhere = torch.ones_like(batch.target, dtype=torch.bool)
    return noised(
        batch,
        scale,
        timestep,
        noise.to(batch.after.device),
        alphas,
        null_tokens=null_tokens,
        has_text=everywhere & with_text,
        has_image=everywhere,
        from_input=everywhere & from_input,
    )


def grounding_maps(
    predict: Predict,
    batch: Batch,
    scale: float,
    alphas: Float[Tensor, "1000"],
    null_tokens: Int[Tensor, " length"],
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Probability of change and of the target, and |z0(image, text) - z0(image, none)|, at 800."""
    latent = batch.after.shape[1]
    timestep = torch.full_like(batch.target, GROUNDING_TIMESTEP)
    full, image = (
        in_parts(
            predict,
            fixed_noise(
                batch, scale, timestep, alphas, null_tokens, with_text=with_text, from_input=True
            ),
        )
        for with_text in (True, False)
    )
    change, target = full.split(Heads(latent).sizes, dim=1)[1:3]
    difference = (full - image)[:, :latent].abs().sum(dim=1)
    return change[:, 0].sigmoid(), target[:, 0].sigmoid(), difference


@torch.no_grad()
def in_parts(predict: Predict, given: Noised, at_once: int = 64) -> Float[Tensor, "b k h w"]:
    """The predictions of a noised batch, so many images at once."""
    parts = zip(*(value.split(at_once) for value in vars(given).values()), strict=True)
    return torch.cat([predict(Noised(*part)).float() for part in parts])
