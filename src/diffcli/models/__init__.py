"""The networks: U-Net and super-resolution U-Net, their blocks, and one builder from a RunConfig."""
