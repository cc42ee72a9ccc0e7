"""Repair: what mends a detector after channels were removed, before anything is learnt."""
