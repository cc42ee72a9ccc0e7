"""How a model learns from another one; the criterion is ``slimface.train.distill``."""
