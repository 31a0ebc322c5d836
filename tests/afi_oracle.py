"""The pseudo-code of approximate flat interaction, one point at a time: what the tests compare with."""

import math

import numpy as np

from uov_hf.afi import AFIConfig, labels_to_scores


SMALL = AFIConfig(level_sizes=(60, 20, 6))


def oracle(
    points, evidence, sizes=(1365, 455, 151, 50), k=20, num_directions=20, de_k=6, gamma=0.995, alpha=0, **ours
):
    """The official network (checked against it to 2e-7), in the dtype of `points`, with the names of the pseudo-code.

    Two further constants are ours: `base_vote` and `own_weights`. So is the last step: rows sum to one or to zero.
    """
    U = sphere(num_directions, points.dtype)
    levels = [(points, evidence, None, None)]
    for size in sizes:
        levels.append(encoder_level(*levels[-1], size, U, k, gamma, alpha))
    Z = levels[-1][1]
    for s in range(len(sizes), 0, -1):
        Z = decoder_level(Z, s, *levels[s], *levels[s - 1][:2], de_k, gamma, **ours)
    sums = Z.sum(1, keepdims=True)
    return Z / np.where(sums == 0, 1, sums)


def sphere(num_directions, dtype):
    U = []
    for j in range(num_directions):
        y = 1 - 2 * j / (num_directions - 1)
        r, angle = math.sqrt(1 - y * y), j * math.pi * (3 - math.sqrt(5))
        U.append([r * math.cos(angle), y, r * math.sin(angle)])
    return np.array(U, dtype)


def l1(v):
    return v / (v.sum(-1, keepdims=True) + v.dtype.type(1e-9))


def squared_distances(points, query):
    dx, dy, dz = (points - query).T
    return dx * dx + dy * dy + dz * dz


def length(v):
    return np.sqrt(v[..., 0] * v[..., 0] + v[..., 1] * v[..., 1] + v[..., 2] * v[..., 2])


def nearest(points, query, k):
    squares = squared_distances(points, query)
    near = np.flatnonzero(squares <= np.partition(squares, min(k, len(points)) - 1)[min(k, len(points)) - 1])
    return near[np.argsort(squares[near], kind="stable")][:k]


def farthest_points(points, size):
    picks, best = [0], np.full(len(points), np.inf, points.dtype)
    pickable = squared_distances(points, np.zeros(3, points.dtype)) > 1e-3
    while len(picks) < size:
        best = np.minimum(best, squared_distances(points, points[picks[-1]]))
        picks.append(int(np.where(pickable, best, -1).argmax()))
    return np.array(picks)


def encoder_level(P, X, pi_parent, mu_parent, size, U, k, gamma, alpha):
    eps, tenth = P.dtype.type(1e-8), P.dtype.type(0.1)
    c = farthest_points(P, min(size, len(P)))
    mu, pi, H, strength, highest = [], [], [], [], []
    for centre in c:
        nb = nearest(P, P[centre], k)
        off = P[nb] - P[centre]
        dist = length(off)
        u = off / (dist + eps)[:, None]
        sec = (u @ U.T).argmax(1)
        in_sector = (sec == np.arange(len(U))[:, None]).astype(P.dtype)  # (A, k)
        cnt = in_sector.sum(1)
        cnt[0] -= 1
        mu.append((in_sector @ off) / (cnt + eps)[:, None])
        H.append(l1(in_sector @ X[nb]))
        if pi_parent is None:
            kept = np.where(cnt > alpha, cnt, 0)
            pi.append(kept / (kept.sum() + eps))
            strength.append(P.dtype.type(1))
        else:
            w = agreement(u, dist, pi_parent[centre], mu_parent[centre], pi_parent[nb], mu_parent[nb], gamma)
            strength.append(w.sum())
            pi.append(in_sector @ (w / (strength[-1] + P.dtype.type(1e-7))))
        highest.append(X[nb].max(0))
    I_m = np.array(strength) if pi_parent is None else np.array(strength) / (np.mean(strength) + eps)
    mu, pi = np.array(mu), np.array(pi)
    rho = l1(pi / (length(mu) + eps))
    flow = [I_m[m] * (rho[m] @ H[m]) for m in range(len(c))]
    return P[c], l1(np.array(flow) + tenth * X[c] + eps * np.array(highest)), pi, mu


def agreement(u, dist, pc, mc, pn, mn, gamma):
    eps = u.dtype.type(1e-8)
    lc, ln = length(mc), length(mn)  # (A,), (k, A)
    mc, mn = mc / (lc + eps)[:, None], mn / (ln + eps)[..., None]
    sc, sn = u @ mc.T, (mn @ u[:, :, None])[..., 0]  # (k, A)
    w = (pc * (abs(sc) > gamma)).sum(1) * (pn * (abs(sn) > gamma)).sum(1)
    a_plus, a_minus = (lc * (sc > gamma)).max(1), (lc * (-sc > gamma)).max(1)
    n_plus, n_minus = (ln * (sn > gamma)).max(1), (ln * (-sn > gamma)).max(1)
    t = (a_plus + a_minus + n_plus + n_minus) / (dist + a_minus + n_plus + eps)
    return np.where((a_plus + a_minus != 0) & (n_plus + n_minus != 0), w * t, 0)


def decoder_level(Z, s, P, X, pi, mu, fine_P, fine_X, de_k, gamma, base_vote=0, own_weights=None):
    one = P.dtype.type
    mu = mu / (length(mu) + one(1e-8))[..., None]
    S, votes = [], []
    for p in fine_P:
        nb = nearest(P, p, de_k)
        v = P[nb] - p
        v = v / (length(v) + one(1e-8))[:, None]
        w = (pi[nb] * (abs((mu[nb] @ v[:, :, None])[..., 0]) > gamma)).sum(1) + one(base_vote)
        S.append(w.sum() + one(1e-8))
        w = w / S[-1] + one(1e-6) + one(1e-10)
        votes.append(w / (w.sum() + one(1e-8)) @ Z[nb])
    b = one((0.3 if len(fine_P) == 3 * len(P) else 0.01) if own_weights is None else own_weights[s - 1])
    S = np.array(S)[:, None]
    return l1(S * np.array(votes) + (one(1e-8) + b * S.mean()) * fine_X)


def same_but_for_ties(ours, expected):
    """Same labels, except where the two best expected scores lie within 1e-5."""
    best = np.sort(expected, axis=1)
    return (ours.argmax(1) == expected.argmax(1)) | (best[:, -1] - best[:, -2] < 1e-5)


def street(num_points, seed=0, dtype=np.float64):
    """Flat ground, two walls, boxes on the ground; labels of 5 surfaces, a fifth of them wrong."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, num_points, p=[0.5, 0.2, 0.2, 0.1])
    along, across, height = rng.uniform(-30, 30, num_points), rng.uniform(-7, 7, num_points), np.zeros(num_points)
    wall = (labels == 1) | (labels == 2)
    across[wall] = np.where(labels[wall] == 1, -7, 7)
    height[wall] = rng.uniform(0, 5, wall.sum())
    box = labels == 3
    along[box] = 12 * np.round(along[box] / 12) + rng.uniform(-2, 2, box.sum())
    across[box], height[box] = rng.choice([-3, 3], box.sum()), rng.uniform(0.2, 1.6, box.sum())
    points = np.stack([along, across, height - 1.84], 1) + rng.normal(scale=0.01, size=(num_points, 3))
    wrong = rng.random(num_points) < 0.2
    return points.astype(dtype), labels, np.where(wrong, rng.integers(0, 5, num_points), labels)


def scene(num_points=1500, seed=0, dtype=np.float64):
    """Points of a street, and one-hot scores of their noisy labels."""
    points, _, labels = street(num_points, seed, dtype)
    return points, labels_to_scores(labels, 5).astype(dtype)
