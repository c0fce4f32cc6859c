"""Training an InstructPix2Pix editor: data, tokenizer, autoencoder, denoiser, export."""
