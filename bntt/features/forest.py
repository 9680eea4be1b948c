"""A random forest (Breiman 2001), trained by scikit-learn, kept as tensors and evaluated from them.

The nodes of all trees are numbered through. An inner node has a feature, a threshold and two children: the left one is
taken if the feature is at most the threshold. A leaf is its own child, and has the share of each class among its
training samples. The forest's answer is the mean of these shares over the trees.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bntt.spiking.randomness import key

NAMES = ("feature", "threshold", "children", "share", "root")


def fit(features: np.ndarray, labels: np.ndarray, classes: int, trees: int, seed: int) -> dict[str, Tensor]:
    """Grow a forest on float32 features ``[N, F]``; its nodes, and ``root [trees]``.

    Each tree is grown to pure leaves, on a bootstrap sample; a split tries sqrt(F) features, drawn anew.
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(trees, random_state=key(seed, "forest") % 2**32).fit(features, labels)
    start, root, parts = 0, [], []
    for grown in forest.estimators_:
        tree = grown.tree_
        own = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        share = np.zeros((tree.node_count, classes))
        share[:, forest.classes_] = tree.value[:, 0]
        share /= share.sum(1, keepdims=True)
        children = np.stack([np.where(leaf, own, side) for side in (tree.children_left, tree.children_right)], 1)
        parts.append((np.where(leaf, 0, tree.feature), tree.threshold, children + start, share))
        root.append(start)
        start += tree.node_count
    feature, threshold, children, share = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = {
        "feature": feature.astype(np.int32), "threshold": threshold, "children": children.astype(np.int32),
        "share": share, "root": np.array(root, np.int32),
    }  # fmt: skip
    return {name: torch.from_numpy(values) for name, values in found.items()}


def shares(forest: Mapping[str, Tensor], features: np.ndarray) -> np.ndarray:
    """The mean share of each class, float64 ``[N, classes]``."""
    feature, threshold, children, share, root = (forest[name].cpu().numpy() for name in NAMES)
    sample = np.arange(len(features))
    total = np.zeros((len(features), share.shape[1]))
    for first in root:
        node = np.full(len(features), first)
        while True:
            right = features[sample, feature[node]] > threshold[node]
            after = children[node, right.astype(int)]
            if (after == node).all():
                break
            node = after
        total += share[node]
    return total / len(root)
