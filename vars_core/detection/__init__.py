"""Detection: scores of photos, higher = adversarial, thresholds, and filter and detector as one defence.

In reading order:

    detectors        the contrastive detector, its loss and training
    rival_detectors  detectors that others proposed, under one interface
    score_variants   other scores from the detector's embedding
    calibration      thresholds at a false-alarm rate, AUROC and rates with intervals
    defence          filter and detector: fitted jointly, calibrated, saved; `screen` for an upload
    screen           `vars screen`: a folder of photos, resumable

It imports `reconstruction`, `attacks`, `recommender`, `data` and the modules at the top of the package.

To add a detector: a class of `rival_detectors.RivalDetector`, and a line in `rival_detectors.rivals`; notebook 5 then
fits, calibrates and compares it. Tests: tests/detection/test_rival_detectors.py runs over that list.
"""
