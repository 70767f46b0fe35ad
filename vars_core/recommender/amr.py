"""AMR: VBPR trained against the worst small change of the features (Tang et al., TKDE 2020)."""

import torch
from torch.nn import functional

from vars_core.recommender import bpr
from vars_core.recommender.vbpr import VBPR


class AMR(VBPR):
    """s(u, i) as VBPR; trained on BPR + λ · BPR under adversarial changes Δ_i, Δ_j of both items' features.

    Δ_i = ε Γ_i / ‖Γ_i‖ with Γ_i = ∂ loss / ∂ f_i (eqs. 9 to 12): the direction that *hurts*, a change of the visual
    features of the positive and of the negative item, not of their embeddings. As s is linear in f_i,
    Γ_i = −σ(−x) w_u and Γ_j = σ(−x) w_u, so the worst change is known in closed form: x becomes x − 2 ε ‖w_u‖,
    with the same value and gradient as adding Δ as a constant. ε is `amr_epsilon` in units of √D, the length of a
    typical standardised feature vector. Training starts from a VBPR of the same seed, as in the paper.
    """

    def fit(self, split, features=None, cfg=None, seed: int = 0, *, device=None, checkpoint=None, start=None):
        """As VBPR's; training goes on from the fitted VBPR `start`, or from one of the same seed."""
        start = start or VBPR().fit(split, features, cfg, seed, device=device)
        self._build(**start.sizes)
        self.load_state_dict(start.state_dict())
        self.epsilon, self.weight = cfg.amr_epsilon, cfg.amr_weight
        return self._train(self._history(split), split, features, cfg, seed, device, checkpoint)

    def sensitivity(self, users) -> torch.Tensor:
        """‖w_u‖ · √D (B,): how much the score of `users` can change per unit of ‖Δ‖ / √D."""
        look = torch.cat([self.projection, self.visual_bias[:, None]], dim=1)
        # embedding, not indexing: the gradient of indexing is summed in any order, and no two trainings would agree
        taste = torch.cat(
            [functional.embedding(users, self.visual_factors), self.visual_factors.new_ones(len(users), 1)], dim=1
        )
        squared = ((taste @ (look.T @ look)) * taste).sum(1)  # ‖E θ_u + β′‖² through the small Gram matrix
        return (squared + 1e-12).sqrt()

    def training_loss(self, users, positives, negatives, features):
        difference, penalty = self.score_difference(users, positives, negatives, features)
        attacked = difference - 2 * self.epsilon * self.sensitivity(users)
        return (bpr.loss(difference) + self.weight * bpr.loss(attacked)).mean(), penalty
