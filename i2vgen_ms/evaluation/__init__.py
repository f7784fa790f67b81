"""How good a model's videos are: measured against true clips of the procedural world, or against pairs of files."""
