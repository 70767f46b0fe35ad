"""Detection: scores of photos, higher = adversarial, thresholds, and filter and detector as one defence.

In reading order:

    detectors        the contrastive detector, its loss and training
    rival_detectors  detectors that others proposed, under one interface
    score_variants   other scores from the detector's embedding
    honest           photos as honest sellers upload them, which thresholds are set on
    calibration      thresholds at a false-alarm rate, AUROC and rates with intervals
    starting         detectors that start from what pretrained/ has for them
    defence_files    a defence on disk, with hashes: what is damaged is noticed
    defence          filter and detector: fitted jointly, calibrated, saved; `screen` for an upload
    uploads          near-duplicates that one seller uploads, counted by perceptual hashes
    listing          which photos lie under a folder, and marks by which a changed one is noticed
    journal          verdicts on disk as they are reached: what a killed run leaves, and another goes on with
    kept_models      `vars pretrained`: a run's models, packed into pretrained/ with a card
    screen           `vars screen`: a folder of photos, resumable, in several processes

It imports `reconstruction`, `attacks`, `recommender`, `data` and the modules at the top of the package.

To add a detector: a class of `rival_detectors.RivalDetector`, and a line in `rival_detectors.rivals`; notebook 5 then
fits, calibrates and compares it. Tests: tests/detection/test_rival_detectors.py runs over that list.
"""
