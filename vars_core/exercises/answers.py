"""What check cells import: `check`, which knows all answers."""

from vars_core.exercises import defence_answers, first_answers, shop_answers
from vars_core.exercises.checks import check

__all__ = ["check", "defence_answers", "first_answers", "shop_answers"]
