"""Search: the rates of groups of layers that lose least under a budget."""
