"""Diffusion editors: loading, conditioning, guided prediction and masked denoising.

The only part of wys, beside training, that imports diffusers and transformers.
"""
