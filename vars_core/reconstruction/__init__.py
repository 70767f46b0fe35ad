"""Reconstruction: the filter, R: image → image, which takes a perturbation back before the recommender sees the
photo.

In reading order:

    filters             the global vision transformer, its gate, and rivals of equal cost
    training            its loss, and training against attacks made as it learns
    trainer             one model under training: optimiser, rate, mean of its last weights, losses by step
    online_attacks      what training sees: attacks, noise and honest edits, drawn anew for every batch
    starting            filters that start from what an earlier run learned
    classics            filters that need no training: JPEG, bit depth, median, blur, total variation
    serving             photos behind noise: what f and a filter make of them under several draws
    recovery            what a filter gives back, and what it costs on clean photos
    robust_extractor    the defence that changes the victim instead
    denoise_to_protect  the nearest rival: its photos and its training

It imports `attacks`, `recommender`, `data` and the modules at the top of the package.

To add a filter: a module (N, 3, H, W) → (N, 3, H, W) in [0, 1]. One without training is a line in
`classics.classics`; one that is trained has `settings` and `forward_with_gate` as `filters.GlobalViT` has and a line
in FILTERS, and notebook 4 names it among its arms. The gate stands in `filters`. Tests:
tests/reconstruction/test_filters.py.
"""
