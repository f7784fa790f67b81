"""The spatio-temporal UNet: one network for the whole I2VGen-XL family, cut into the parts of its figure."""
