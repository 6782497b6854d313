"""The Gaussian diffusion process in pure tensor maths: no input or output, no device policy."""
