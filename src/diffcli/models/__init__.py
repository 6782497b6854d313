"""The networks: U-Net, super-resolution U-Net and classifier, their blocks, and builders from a RunConfig."""
