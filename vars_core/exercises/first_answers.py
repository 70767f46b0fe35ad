"""The right answers to the exercises of notebook 0, and what one gets by likely mistakes. Try first."""

import torch

from vars_core.exercises.checks import exercise, goal


@exercise("0.1")
def _(photo):
    colours, height, width = photo.shape
    return colours * height * width, {"you count pixels; each has three colours": height * width}


@exercise("0.2", tolerance=0.05)
def _(share, photos, attacked, epsilon, signs):
    reached = float(share((photos + signs * epsilon / 255).clamp(0, 1)))
    return reached, {
        "you count the attacked photos of 0.3": float(share(attacked)),
        "you give it in per cent": 100 * reached,
        "the signs are added as they are, a change of ±1, not of ±ε/255": float(share((photos + signs).clamp(0, 1))),
    }


@exercise("0.3")
def _(shares):
    return ("more" if shares[0] > shares[1] else "fewer"), {}


@goal("0.4")
def _(answer, share, photos, epsilon):
    answer = torch.as_tensor(answer).to(photos)
    if answer.shape != photos.shape:
        return False, f"photos of the shape {tuple(photos.shape)} are expected; yours have {tuple(answer.shape)}"
    if (moved := float((answer - photos).abs().max()) * 255) > epsilon + 0.5:
        return False, f"a value changed by {moved:.1f} of 255, and {epsilon} is the most"
    before, reached = float(share(photos)), float(share(answer))
    return reached >= 2 * before, f"{reached:.2%} of the lists behind the filter, {before:.2%} untouched"
