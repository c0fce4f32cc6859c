"""The linear start of the autoencoder against plain linear algebra."""

import pytest
import torch

from wys.errors import WysError
from wys.training.autoencoder import AutoencoderSettings, build_autoencoder
from wys.training.linear import (
    PATCH,
    PatchBasis,
    patches,
    principal_patches,
    set_encoder,
    start_decoder,
)

SETTINGS = AutoencoderSettings()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth random images in [-1, 1]."""
    coarse = torch.randn(24, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, size=(32, 40), mode="bicubic")
    return fine.clamp(-1, 1)


@pytest.fixture(scope="module")
def basis(images: torch.Tensor) -> PatchBasis:
    return principal_patches(images, SETTINGS.latent_channels)


def linear_latents(images: torch.Tensor, basis: PatchBasis) -> torch.Tensor:
    rows = (patches(images) - basis.mean) @ basis.project.T
    height, width = images.shape[-2] // PATCH, images.shape[-1] // PATCH
    return rows.reshape(len(images), height, width, -1).permute(0, 3, 1, 2)


def test_patches_are_rows_of_pixels(images: torch.Tensor) -> None:
    rows = patches(images)
    assert torch.equal(rows[11], images[0, :, 4:8, 4:8].permute(1, 2, 0).flatten())


def test_all_components_restore_every_patch(images: torch.Tensor) -> None:
    full = principal_patches(images + 0.01 * torch.randn_like(images), 48)
    rows = patches(images) - full.mean
    assert torch.allclose(rows @ full.project.T @ full.restore.T, rows, atol=1e-3)


def test_no_projection_of_the_same_size_keeps_more(images: torch.Tensor, basis: PatchBasis) -> None:
    rows = patches(images) - basis.mean
    lost = (rows - rows @ basis.project.T @ basis.restore.T).square().sum()
    singular = torch.linalg.svdvals(rows.double())
    assert lost.item() == pytest.approx(
        singular[SETTINGS.latent_channels :].square().sum().item(), rel=1e-2, abs=1e-3
    )
    variance = (rows @ basis.project.T).var(0, correction=0)
    assert variance.mean().item() == pytest.approx(1, abs=1e-3)


def test_the_encoder_is_the_linear_map(images: torch.Tensor, basis: PatchBasis) -> None:
    vae = build_autoencoder(SETTINGS, 32)
    set_encoder(vae, basis)
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
    expected = linear_latents(images, basis)
    assert torch.allclose(posterior.mode(), expected, atol=0.01, rtol=0.01)
    assert float(posterior.std.max()) < 1e-5


def test_the_decoder_begins_near_the_image(images: torch.Tensor, basis: PatchBasis) -> None:
    vae = build_autoencoder(SETTINGS, 32)
    random = vae.decode(linear_latents(images, basis)).sample
    start_decoder(vae, basis)
    with torch.no_grad():
        output = vae.decode(linear_latents(images, basis)).sample
    inside = (..., slice(8, -8), slice(8, -8))
    error = (output - images)[inside].square().mean()
    assert error < 0.25 * images[inside].var()
    assert error < 0.1 * (random - images)[inside].square().mean()


def test_a_network_that_is_too_narrow_is_refused(basis: PatchBasis) -> None:
    vae = build_autoencoder(AutoencoderSettings(channels=(8, 8, 16), groups=8), 32)
    with pytest.raises(WysError, match="too narrow"):
        set_encoder(vae, basis)
