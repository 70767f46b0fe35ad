"""Attacks on visually-aware recommenders and a defence: the thin package behind the notebooks, a tower of rooms.

Lowest first: `data`, `recommender`, `attacks`, `reconstruction`, `detection`, `adaptive`. A room imports from rooms
below it only; what every room uses stands here, at the top of the package. `pipeline` runs notebooks and knows no
room.
"""
