"""Attacks: how far a change of at most ε grey levels in one photo moves an item, by every algorithm and objective.

An *objective* maps images (N, 3, H, W) in [0, 1] to one value each, which an attacker maximises; an *algorithm* owns
budget, steps and rounding. Nobody here knows a defence: that is the room `adaptive`.

In reading order:

    engine             budget, rounding, FGSM, PGD, MIM, noise; batches and results
    objectives         look like a bestseller (hook), run away, be of a class; sums, thresholds, evasion
    promotion          be in lists: insa, promote, reach, and demote, in any recommender
    expectation        any of them as a mean over noise that a shop adds
    beyond_linf        an L2 budget, a sticker, light and colour
    apgd               Auto-PGD, which chooses its own steps
    carlini_wagner     the smallest change that reaches a value
    orthogonal         reach an objective and fool a detector without trading one for the other
    square             random search by scores alone: a black box
    feature_black_box  gradients in feature space from ranks alone: a black box
    query_trace        what a black box has after so many queries
    campaign           all attacks by name on the same items, with controls; what they change
    presets            the settings of the papers, by name
    as_published       an exhibit: a nominal ε = 4 that is 0.92
    transfer           photos made on one model, tried on another
    poisoning          attacked photos that the recommender is trained on
    explorer           attacked photos to try out, in JupyterLab and on the site
    sanity             checks that an attack's numbers must pass to be believed

It imports `recommender`, `data` and the modules at the top of the package.

To add an algorithm: a function called as `engine.linf` is, in a file of its own (a black box: copy `square`), and a
line in ATTACKS of `campaign`; its name in ALGORITHMS runs it in notebook 3 and against every filter, in
UNSEEN_ATTACKS it is kept for testing. To add an objective: a class or function in `objectives` or `promotion`, and a
line in AIMS of `campaign`. Tests: tests/attacks/test_engine.py holds what every algorithm must keep.
"""
