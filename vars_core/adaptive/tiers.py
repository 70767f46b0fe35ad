"""Attackers by what they know of the defence: tiers T0 to T4 of the threat model.

T0 attacks f alone. T1 differentiates a filter and a detector of its own, trained with another seed. T2 differentiates
f∘R, T3 also keeps the detector's score under its threshold; both also hold the filter's gate shut, if it has one. T4
only asks (Square), or brings photos that were made on another extractor. The headline is the worst case *per item*
over all attacks of a tier, never the minimum of means.
"""

import numpy as np

from vars_core.adaptive.scene import DEFENCES, Scene
from vars_core.adaptive.ways import (
    feature_matching,
    filter_ways,
    oblivious,
    orthogonal_evasion,
    query_system,
    short_steps,
    through_detector,
    through_filter,
)
from vars_core.attacks.apgd import apgd
from vars_core.attacks.engine import linf
from vars_core.attacks.transfer import attacked_photos
from vars_core.runtime import generator


def attacks_by_tier(
    scene: Scene,
    aim: str,
    epsilon: int,
    *,
    steps: int,
    penalties,
    queries: int,
    seed: int,
    surrogate: Scene | None = None,
    other_objective=None,
    reuse: dict[str, dict[str, np.ndarray]] | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Photos by tier and kind of attack. A tier holds those of all lower ones too, but for T4, which sees nothing of
    the models.

    With the aim *reach* the peers' objective, *insa*, is tried, too: where it gets further, it counts.

    `surrogate` is the same scene with a surrogate defence; without it there is no T1. `other_objective` is the hook
    objective through an extractor of the attacker's own; with it T4 brings such photos, too. `reuse` are pools of
    another defence whose T0 and T1, which don't depend on the defence, are taken over."""
    draw = generator(seed, "adaptive", aim, epsilon)
    known = {tier: photos for tier, photos in (reuse or {}).items() if tier in ("T0", "T1")}
    options, peers = (epsilon, steps, draw, aim), (epsilon, steps, draw, "insa")
    if "T0" not in known:
        # APGD, too: the undefended exposure shall not be lower just because a weaker attack was used for it
        known["T0"] = {"PGD on f": oblivious(scene, *options), "APGD on f": oblivious(scene, *options, apgd)}
        if aim == "reach":
            known["T0"]["insa on f"] = oblivious(scene, *peers)
    if "T1" not in known and surrogate is not None:
        (both,) = through_detector(surrogate, epsilon, steps, penalties[-1:], draw, aim=aim, shut=surrogate.gated)
        surrogates = {
            "surrogate's filter": through_filter(surrogate, *options, shut=surrogate.gated),
            "surrogate's both": both,
        }
        known["T1"] = known["T0"] | surrogates
    through = {name: through_filter(scene, *options, attack, shut) for name, attack, shut in filter_ways(scene)}
    if aim == "reach":
        through["insa through R"] = through_filter(scene, *peers, shut=scene.gated)
    known["T2"] = known.get("T1", known["T0"]) | through
    evading = {}
    ways = [("", True, linf, False, penalties), (", no filter", False, linf, False, penalties)]
    ways += [(", APGD", True, apgd, False, penalties[-1:])]  # PGD is the stronger one on some catalogues only
    if scene.gated:
        ways += [(", gate shut", True, linf, True, penalties)]
        ways += [(", gate shut, short steps", True, short_steps, True, penalties[-1:])]
    for name, defended, attack, shut, weights in ways:
        found = through_detector(scene, epsilon, steps, weights, draw, defended, aim, attack, shut)
        evading |= {f"λ = {c}{name}": photos for c, photos in zip(weights, found, strict=True)}
    if aim == "reach":
        (evading["insa past both"],) = through_detector(
            scene, epsilon, steps, penalties[-1:], draw, aim="insa", shut=scene.gated
        )
    others = {
        "orthogonal": orthogonal_evasion(scene, *options),
        "matching": feature_matching(scene, epsilon, steps, draw),
    }
    known["T3"] = known["T2"] | evading | others
    known["T4"] = {"Square": query_system(scene, epsilon, queries, draw, aim)}
    if other_objective is not None:
        known["T4"]["own extractor"] = attacked_photos(
            other_objective, scene.undefended.photos(scene.items), epsilon, steps, seed
        )
    return known


def outcomes_by_tier(
    scene: Scene, tiers: dict[str, dict[str, np.ndarray]]
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """`Scene.exposed_by_defence` of the photos that `attacks_by_tier` gives, by tier and kind. Tiers share photos:
    each is served once."""
    seen = {id(photos): scene.exposed_by_defence(photos) for pool in tiers.values() for photos in pool.values()}
    return {tier: {kind: seen[id(photos)] for kind, photos in pool.items()} for tier, pool in tiers.items()}


def worst_cases(by_tier: dict[str, dict[str, dict[str, np.ndarray]]]) -> dict[tuple[str, str], np.ndarray]:
    """(tier, defence) → (U, A), of what `served` gives."""
    return {
        (tier, defence): worst_case([reached[defence] for reached in kinds.values()])
        for tier, kinds in by_tier.items()
        for defence in DEFENCES
    }


def worst_case(reached: list[np.ndarray]) -> np.ndarray:
    """Per item the attack that reaches most users: (U, A) from several (U, A)."""
    stack = np.stack(reached)
    best = np.nanmean(stack, axis=1).argmax(0)
    return stack[best, :, np.arange(stack.shape[2])].T
