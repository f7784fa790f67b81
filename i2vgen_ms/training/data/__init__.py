"""What networks are trained on: the procedural world, or files; batches of it on the training device."""
