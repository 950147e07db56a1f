"""A local EC2: moto with an EC2 that behaves and instances that really run, as processes."""
