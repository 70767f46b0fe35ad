"""Recommender: the victims, how they are trained, where items stand in people's lists, and the shop that shows them.

A recommender gives scores s(u, i); the list of a user holds the k best items that the user has not. A *shop* is one
recommender that serves a prepared catalogue, perhaps through a filter: what attacks and defences are measured in.

In reading order:

    base              what every recommender is: fit, scores, item_scores, save, load
    popularity        number of buyers
    bprmf             matrix factorisation, blind
    vbpr              the same with a linear view of the photos: attacked first
    amr               VBPR trained against changed features
    dvbpr             tastes and the network that sees, trained end to end
    lightgcn          a graph of users and items, with a visual branch
    visual_knn        what looks like what a user has
    victims           all of them by name
    bpr               training on triples: user, item, other item
    early_stopping    epochs until validation no longer rises, resumable
    ranking           full ranking, pessimistic ties, lists
    accuracy_metrics  HR, NDCG, AUC, MRR, cold AUC
    attack_metrics    exposure, rank shift, prediction shift, categories in lists
    list_overlap      how alike two sets of lists are
    shortlist         the peers' second protocol: re-ranking 1,000 candidates
    shop              one recommender before its users, and what a changed photo does there

It imports `data` and the modules at the top of the package.

To add a recommender: a class of `base.Recommender` (or of VBPR, BPR-MF) in a file of its own, and a line in
FITTED_ON_FEATURES of `victims`; notebooks 2 and 3 then train, measure and attack it. A marker and a colour of its own
are a line in `vars_core.plots`. Tests: tests/recommender/test_recommenders.py runs over the names in `victims`.
"""
