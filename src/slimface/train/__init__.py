"""How a detector learns."""

# Criteria around criteria know each other only once all are there.
from slimface.train import criteria as criteria
