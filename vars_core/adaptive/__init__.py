"""Adaptive: attackers by what they know of the defence, T0 (nothing) to T3 (filter and detector), and T4 (who only
ask).

In reading order:

    scene        items, hooks, the shop with and without the filter, and the defence
    ways         ways of attack through filter and detector, a function each
    tiers        the ways that each tier has, and the worst case per item
    randomised   a shop that adds noise to every photo: rules of serving, and how often a photo enters lists
    noisy_ways   ways of attack on such a shop
    soft_jpeg    JPEG with a gradient, for attackers of that rival
    noisy_tiers  the ways that each tier has there
    certificate  what no attack on it can exceed, with proof
    promises     those bounds by item and budget, from counted draws

It imports every room below: `detection`, `reconstruction`, `attacks`, `recommender`, `data`.

To add an attack on a defence: a function of a `Scene` in `ways`, and its photos in `tiers.attacks_by_tier`, at the
lowest tier that knows enough for it. One that only goes through the filter is a line in `ways.filter_ways`, and is
then tried in every tier that knows the filter. Tests: tests/adaptive/test_tiers.py.
"""
