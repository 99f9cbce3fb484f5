"""How far scores move with the images they are of: groups of images left out one after the other.

A score of n images in g groups is computed without each group. The pseudo-values h s - (h - 1) s_j, where s_j
is without group j of n / h images, behave as g independent estimates: the standard deviation of their mean is
that of the score (Tukey; Efron and Stein, Annals of Statistics 9(3), 1981), and their mean has no bias of
order 1 / n. Image i is in the same group whatever the variant, so pseudo-values of two variants subtract to
those of their difference: images of one noise move together, and what they share drops out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from edadm.calibration.allocate import keyed_generator

GROUPS = 200
LARGE = 512  # of images and features the smaller number, from which on each group takes seconds
GROUPS_OF_LARGE = 20
BLOCK = 128


def groups_of(images: int, most: int = GROUPS) -> Int[Tensor, " n"]:
    """The group of each image: `most` keyed at random, or an image in each where there are few images.

    Groups differ by one image at most. Below `2 most` images each is a group, since groups of one and of two
    would have pseudo-values of very different spread.
    """
    number = images if images < 2 * most else most
    order = keyed_generator(images, "jackknife").permutation(images)
    groups = np.empty(images, dtype=np.int64)
    groups[order] = np.arange(images) % number
    return torch.from_numpy(groups)


def frechet_groups(images: int, features: int) -> Int[Tensor, " n"]:
    """The groups of a Frechet distance, few where an eigenvalue problem takes long."""
    return groups_of(images, GROUPS if min(images, features) <= LARGE else GROUPS_OF_LARGE)


def pseudo_values(
    groups: Int[Tensor, " n"], whole: float, without: Float[Tensor, " g"]
) -> Float[Tensor, " g"]:
    """g estimates of a score from its values for all images and without each group."""
    share = len(groups) / torch.bincount(groups).double()
    return share * whole - (share - 1) * without


def of_mean(values: Float[Tensor, " n"], groups: Int[Tensor, " n"]) -> Float[Tensor, " g"]:
    """Pseudo-values of the mean of a number per image: the groups' own means."""
    sums = torch.zeros(int(groups.max()) + 1, dtype=torch.float64).index_add_(0, groups, values.double())
    return sums / torch.bincount(groups)


def of_function(
    values: Float[Tensor, "n k"], groups: Int[Tensor, " n"], score: Callable[[Tensor], Tensor]
) -> Float[Tensor, " g"]:
    """Pseudo-values of a function (m, k) -> (m,) of the mean of k numbers per image."""
    number = int(groups.max()) + 1
    sums = torch.zeros(number, values.shape[1], dtype=torch.float64).index_add_(0, groups, values.double())
    total, left = sums.sum(0), len(values) - torch.bincount(groups)
    whole = score((total / len(values))[None]).item()
    return pseudo_values(groups, whole, score((total - sums) / left[:, None]))


def of_inception_score(logits: Float[Tensor, "n classes"], groups: Int[Tensor, " n"]) -> Float[Tensor, " g"]:
    """Pseudo-values of exp of the mean KL divergence between an image's class scores and those of all."""
    logged = logits.double().log_softmax(1)
    shares = logged.exp()
    negative_entropy = (shares * logged).sum(1, keepdim=True)

    def score(means: Float[Tensor, "m _"]) -> Float[Tensor, " m"]:
        marginal = means[:, :-1]
        return (means[:, -1] - torch.xlogy(marginal, marginal).sum(1)).exp()

    return of_function(torch.cat([shares, negative_entropy], 1), groups, score)


def of_frechet_distance(
    features: Float[Tensor, "n d"],
    mu: Float[np.ndarray, " d"],
    sigma: Float[np.ndarray, "d d"],
    groups: Int[Tensor, " n"],
) -> Float[Tensor, " g"]:
    """Pseudo-values of the Frechet distance to a Gaussian.

    With rows z = sigma^(1/2) (x - mu), of mean m and n in number, tr (S sigma)^(1/2) is the sum of singular
    values of z - m over (n - 1)^(1/2), which are roots of eigenvalues of a d x d or n x n matrix.
    """
    root, constant = _root(torch.from_numpy(sigma)), float(np.trace(sigma))
    centred = features.double() - torch.from_numpy(mu)
    rows = centred @ root
    known = torch.cat([centred, centred.square().sum(1, keepdim=True)], 1)
    total, images = known.sum(0), len(features)
    traces = _large_traces if images >= features.shape[1] else _small_traces
    values = []
    for left_out, trace in traces(rows, groups):
        sums, left = total - known[left_out].sum(0), images - int(left_out.sum())
        square = (sums[:-1] / left).square().sum()
        spread = (sums[-1] - left * square) / (left - 1)
        values.append((square + spread + constant - 2 * trace / (left - 1) ** 0.5).item())
    return pseudo_values(groups, values[0], torch.tensor(values[1:], dtype=torch.float64))


def _choices(groups: Int[Tensor, " n"]) -> Iterator[Tensor]:
    """Which images are left out: none, then each group."""
    yield torch.zeros_like(groups, dtype=torch.bool)
    for group in range(int(groups.max()) + 1):
        yield groups == group


def _large_traces(rows: Float[Tensor, "n d"], groups: Int[Tensor, " n"]) -> Iterator[tuple[Tensor, Tensor]]:
    """Sums of singular values of centred rows, by their d x d products."""
    products, sums = rows.T @ rows, rows.sum(0)
    for left_out in _choices(groups):
        gone, left = rows[left_out], len(rows) - int(left_out.sum())
        rest = sums - gone.sum(0)
        yield left_out, _sum_of_roots(products - gone.T @ gone - torch.outer(rest, rest) / left)


def _small_traces(rows: Float[Tensor, "n d"], groups: Int[Tensor, " n"]) -> Iterator[tuple[Tensor, Tensor]]:
    """The same by the n x n products of fewer rows than features."""
    products = rows @ rows.T
    for left_out in _choices(groups):
        kept = products[~left_out][:, ~left_out]
        means = kept.mean(0)
        yield left_out, _sum_of_roots(kept - means - means[:, None] + means.mean())


def _sum_of_roots(matrix: Float[Tensor, "k k"]) -> Float[Tensor, ""]:
    return torch.linalg.eigvalsh(matrix).clamp(min=0).sqrt().sum()


def _root(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


def of_kernel_distance(
    features: Float[Tensor, "n d"], real: Float[Tensor, "m d"], groups: Int[Tensor, " n"]
) -> Float[Tensor, " g"]:
    """Pseudo-values of the squared MMD over all pairs, kernel (x y / d + 1)^3 (arXiv 1801.01401)."""
    images = len(features)
    to_own, to_real = _kernel_sums(features, features), _kernel_sums(features, real)
    itself = _kernel_of_itself(features)
    among_real = _kernel_sums(real, real).sum() - _kernel_of_itself(real).sum()
    constant = among_real / (len(real) * (len(real) - 1))
    values = []
    for left_out in _choices(groups):
        gone = features[left_out]
        left = images - len(gone)
        between = to_own.sum() - 2 * to_own[left_out].sum() + _kernel_sums(gone, gone).sum()
        pairs = between - itself[~left_out].sum()
        across = to_real[~left_out].sum()
        values.append(pairs / (left * (left - 1)) - 2 * across / (left * len(real)) + constant)
    return pseudo_values(groups, values[0].item(), torch.stack(values[1:]))


def _kernel_sums(rows: Float[Tensor, "n d"], others: Float[Tensor, "m d"]) -> Float[Tensor, " n"]:
    """Each row's kernels with all others, together."""
    one, sums = torch.ones((), dtype=rows.dtype), []
    for block in rows.split(BLOCK):
        kernels = torch.addmm(one, block, others.T, alpha=1 / rows.shape[1]).pow_(3)
        sums.append(kernels.sum(1).double())
    return torch.cat(sums)


def _kernel_of_itself(rows: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return (rows.double().square().sum(1) / rows.shape[1] + 1) ** 3
