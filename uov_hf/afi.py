"""Approximate flat interaction (AFI): refine the labels of a scan by evidence that flows along flat surfaces."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from .array_checks import check_array, to_sizes, to_tensor, to_xyz
from .configuration_afi import DENSE, AFIConfig
from .configuration_uov import IGNORED
from .ground_ring import find_ground
from .point_neighbors import farthest_points, nearest_points, where_to_search


__all__ = ["DENSE", "AFIConfig", "approximate_flat_interaction", "labels_to_scores"]

FARTHEST = 1e9  # metres: the squares of larger coordinates overflow in float32
MOST_EVIDENCE = 1e9  # of a score: products of larger ones overflow in float32
CHUNK_CENTRES = 2048  # picked points at a time on a CPU: their neighbours fit in a cache
DEVICE_CHUNK_ELEMENTS = 1 << 27  # of one tensor on an accelerator (0.5 GB), where each chunk is a hundred launches
Values = TypeVar("Values", torch.Tensor, np.ndarray)  # results have the type of the input


def labels_to_scores(labels: Values, num_labels: int, ignore_index: int = IGNORED) -> Values:
    """One-hot scores `(N, num_labels)`, float32, of labels `(N,)`; rows of `ignore_index` are zero: no evidence.

    Raises:
        ValueError: The labels have another shape, or a value that is neither a class nor `ignore_index`.
    """
    if not isinstance(labels, torch.Tensor):
        labels = np.zeros(0, np.int64) if isinstance(labels, list) and not labels else labels  # else it is float64
        return labels_to_scores(to_tensor("labels", labels), num_labels, ignore_index).numpy()
    labels = to_tensor("labels", labels)
    check_array("labels", labels, ("num_points",), "iu")
    classes = torch.arange(num_labels, device=labels.device)
    scores = (labels[..., None] == classes) & (labels != ignore_index)[..., None]
    if not (scores.any(dim=1) | (labels == ignore_index)).all():
        raise ValueError(
            f"`labels` must be from 0 to {num_labels - 1} or {ignore_index}, got {labels.unique().tolist()[:20]}."
        )
    return scores.float()


def approximate_flat_interaction(
    points: torch.Tensor | np.ndarray,
    scores: Values,
    config: AFIConfig | None = None,
    num_points: torch.Tensor | Sequence[int] | None = None,
) -> Values:
    """Scores of every point after evidence has flowed along the flat surfaces that contain it (official `afi/afi.py`).

    On each level some points are picked, as far from each other as possible. A picked point stores the directions of
    its neighbours and their classes. From the second level on, a direction counts only if both ends of a line have it.
    On the way back the nearest picked points vote for a point, if they have a direction along the line between them.
    Nothing is trained, and there is no gradient.

    - Picks start at the first point: the order of points matters only where it changes the first. Among equal
      distances the lowest index comes first. Points within 3 cm of the origin are picked only as the first point.
    - Picks and neighbours are found on the CPU for every device. A pick visits the points of one slab, on average a
      tenth of a scan; neighbours come from a k-d tree. Positions and indices then go to the device of `scores`, with a
      hundred launches for every 100,000 points of a level. Without scipy, neighbours come from the distances to all
      points, in chunks, on that device.
    - A level has at most the points of the one below it, and a neighbourhood at most all points.
    - A point with a coordinate that is NaN or beyond 1e9 m is ignored. It keeps its scores, divided by their sum.
    - A row of zeros is a point without evidence. It takes the evidence that reaches it, else it stays zero.

    Args:
        points (`torch.Tensor` or `np.ndarray` of shape `(num_points, 3 or more)`):
            x, y, z in metres in the lidar frame; further columns are ignored.
        scores (`torch.Tensor` or `np.ndarray` of shape `(num_points, C)`):
            One-hot labels ([`labels_to_scores`]) or probabilities; a row with a smaller sum is weaker evidence.
        config ([`AFIConfig`], *optional*): The constants; by default the paper's without its ground ring.
        num_points (`torch.Tensor` of shape `(num_scans,)`, *optional*):
            Points of each scan of a batch; by default there is one scan.

    Returns:
        `torch.Tensor` or `np.ndarray` of shape `(num_points, C)`: Rows sum to one, or to zero where no evidence
        arrives. The type and device are those of `scores`, and so is the dtype where it is floating. The arithmetic
        uses the wider dtype of both inputs, at least float32.

    Raises:
        ValueError: Shapes do not fit, or scores are negative or above 1e9 (logits need a softmax first).
    """
    if not isinstance(scores, torch.Tensor):
        if isinstance(scores, np.ndarray) and scores.dtype.kind == "b":  # one-hot labels
            scores = scores.astype(np.uint8)
        return approximate_flat_interaction(points, to_tensor("scores", scores), config, num_points).numpy()
    config = AFIConfig() if config is None else config
    points = where_to_search(to_xyz(points).detach(), scores.device)
    scores = to_tensor("scores", scores.byte() if scores.dtype == torch.bool else scores.detach())
    _check(points, scores, config)
    sizes = to_sizes(num_points, len(points), "points")

    dtype = torch.promote_types(torch.promote_types(points.dtype, scores.dtype), torch.float32)
    points, refined = points.to(dtype), scores.to(dtype, copy=True)
    with torch.autocast(scores.device.type, enabled=False):
        for scan, own in zip(points.split(sizes), refined.split(sizes), strict=True):
            own.copy_(_sum_to_one(_refine(scan, own, config)))
    return refined.to(scores.dtype) if scores.is_floating_point() else refined


def _check(points: torch.Tensor, scores: torch.Tensor, config: AFIConfig) -> None:
    if scores.ndim != 2 or len(scores) != len(points):
        raise ValueError(
            "`points` must have shape (num_points, 3 or more) and `scores` (num_points, number of classes), got "
            f"{tuple(points.shape)} and {tuple(scores.shape)}. Labels become scores by `labels_to_scores`."
        )
    if not ((scores >= 0) & (scores <= MOST_EVIDENCE)).all():
        raise ValueError(
            f"`scores` must lie between 0 and {MOST_EVIDENCE:g}: one-hot labels or probabilities, got values from "
            f"{scores.min()} to {scores.max()}. Logits go through a softmax first."
        )
    if config.ground_ring is not None and max(config.ground_ring.classes) >= scores.shape[1]:
        raise ValueError(f"`scores` has {scores.shape[1]} columns, too few for {config.ground_ring}.")


def _refine(points: torch.Tensor, scores: torch.Tensor, config: AFIConfig) -> torch.Tensor:
    """Refine one scan: leave out points that are nowhere, and apply the ground ring before and after."""
    somewhere = (points.abs() <= FARTHEST).all(dim=1)  # false for NaN
    if not somewhere.all():
        rows = somewhere.nonzero().squeeze(1)
        of_scores = rows.to(scores.device)
        return _l1(scores).index_copy(0, of_scores, _refine(points[rows], scores[of_scores], config))
    if not len(points):
        return scores
    if config.ground_ring is None:
        return _interact(points, scores, config)
    ground, vehicle = (found.to(scores.device) for found in find_ground(points, config.ground_ring))
    refined = _interact(points, scores.masked_fill((ground | vehicle)[:, None], 0), config)
    is_other = torch.ones(scores.shape[1], dtype=torch.bool)
    is_other[list(config.ground_ring.classes)] = False
    among_ground = refined.masked_fill(is_other.to(scores.device), 0)
    # A ground point without any evidence for ground keeps its scores: zeros would become the first class.
    return torch.where((ground & among_ground.any(dim=1))[:, None], _l1(among_ground), refined)


@dataclass
class _Level:
    """Points (M, 3) and class scores (M, C)."""

    points: torch.Tensor
    scores: torch.Tensor


@dataclass
class _PickedLevel(_Level):
    """A level above the scan, with its A directions.

    Args:
        trust (`torch.Tensor` of shape `(M, A)`): pi, the share of the neighbours in this direction.
        headings (`torch.Tensor` of shape `(M, A, 3)`): mu / |mu|, the mean offset of these neighbours.
        lengths (`torch.Tensor` of shape `(M, A)`): |mu|, in metres.
    """

    trust: torch.Tensor
    headings: torch.Tensor
    lengths: torch.Tensor


def _interact(points: torch.Tensor, scores: torch.Tensor, config: AFIConfig) -> torch.Tensor:
    levels: list[_Level] = [_Level(points.to(scores.device), scores)]
    steps: list[tuple[_PickedLevel, torch.Tensor]] = []
    directions = _sphere(config.num_directions).to(scores.device, points.dtype)
    for size in config.sizes_for(len(points)):
        centres, neighbors, voters = _pick(points, min(size, len(points)), config)
        points = points[centres]
        picked = _encode(levels[-1], centres.to(scores.device), neighbors.to(scores.device), directions, config)
        levels.append(picked)
        steps.append((picked, voters.to(scores.device)))
    refined = levels[-1].scores
    for number, (coarse, voters) in reversed(list(enumerate(steps))):
        own_weight = _own_weight(number, coarse, levels[number], config)
        refined = _decode(refined, coarse, levels[number], voters, own_weight, config)
    return refined


def _pick(points: torch.Tensor, size: int, config: AFIConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of the picked points (M,) among (N, 3), their neighbours (M, k), and nearest picks (N, v)."""
    everyone = torch.arange(len(points), device=points.device)
    centres = everyone if size == len(points) else farthest_points(points, size)
    picked = points[centres]
    neighbors = nearest_points(picked, points, config.num_neighbors)
    return centres, neighbors, nearest_points(points, picked, config.num_voters)


def _own_weight(number: int, coarse: _Level, fine: _Level, config: AFIConfig) -> float:
    if config.own_weights is not None:
        return config.own_weights[number]
    # The official test of "one level up": integer division makes it true of 455 -> 1365 only.
    return 0.3 if len(fine.points) == 3 * len(coarse.points) else 0.01


def _encode(
    parent: _Level, centres: torch.Tensor, neighbors: torch.Tensor, directions: torch.Tensor, config: AFIConfig
) -> _PickedLevel:
    """X_s = l1( I Σ_a rho_a H_a + 0.1 X_parent[centre] + 1e-8 max_neighbours X_parent )"""
    width = neighbors.shape[1] * max(3 * len(directions), parent.scores.shape[1])
    chunk = _chunk_size(centres, width)
    some = zip(centres.split(chunk), neighbors.split(chunk), strict=True)
    views = [_gather_directions(parent, *rows, directions, config) for rows in some]
    seen, least, strength, trust, headings, lengths = (torch.cat(parts) for parts in zip(*views, strict=True))
    if isinstance(parent, _PickedLevel):
        strength = strength / (strength.mean() + 1e-8)
    return _PickedLevel(parent.points[centres], _l1(strength * seen + least), trust, headings, lengths)


def _chunk_size(rows: torch.Tensor, width: int) -> int:
    """Rows at a time, where a tensor has `width` elements for each."""
    return CHUNK_CENTRES if rows.device.type == "cpu" else DEVICE_CHUNK_ELEMENTS // width + 1


def _gather_directions(
    parent: _Level, centres: torch.Tensor, neighbors: torch.Tensor, directions: torch.Tensor, config: AFIConfig
) -> tuple[torch.Tensor, ...]:
    """From neighbours (M, k) of centres (M,): gathered and least scores (M, C), strength (M, 1), and directions."""
    offsets = parent.points[neighbors] - parent.points[centres][:, None]  # (M, k, 3)
    lines = _unit(offsets)
    sector = _dot(lines[:, :, None], directions).argmax(dim=-1)  # (M, k); the centre itself falls in sector 0
    sectors = torch.arange(len(directions), device=sector.device)
    in_sector = (sector[..., None] == sectors).mT.to(offsets.dtype)  # (M, A, k)
    counts = in_sector.sum(dim=-1)
    counts[:, 0] -= 1
    mean_offsets = (in_sector @ offsets) / (counts + 1e-8)[..., None]  # (M, A, 3)
    headings, lengths = _unit(mean_offsets), _length(mean_offsets)
    histograms = _l1(in_sector @ parent.scores[neighbors])  # (M, A, C)

    if isinstance(parent, _PickedLevel):
        weights, strength = _agreement(parent, centres, neighbors, lines, _length(offsets), config.min_cosine)
        trust = (in_sector @ weights[..., None]).squeeze(-1)  # (M, A)
    else:
        trust = torch.where(counts > config.min_count, counts, 0)
        trust, strength = trust / (trust.sum(dim=-1, keepdim=True) + 1e-8), torch.ones_like(counts[:, :1])
    nearness = _l1(trust / (lengths + 1e-8))  # (M, A): nearer directions weigh more
    seen = (nearness[:, None] @ histograms).squeeze(1)  # (M, C)
    least = 0.1 * parent.scores[centres] + 1e-8 * parent.scores[neighbors].amax(dim=1)
    return seen, least, strength, trust, headings, lengths


def _agreement(
    parent: _PickedLevel,
    centres: torch.Tensor,
    neighbors: torch.Tensor,
    lines: torch.Tensor,
    distances: torch.Tensor,
    min_cosine: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (M, k) of lines along which both ends have a direction, and their sum (M, 1) before normalisation."""
    trust, ahead, behind = _flat_lengths(lines, parent, centres[:, None], min_cosine)
    trust_back, onward, back = _flat_lengths(lines, parent, neighbors, min_cosine)
    # The share of the line, with its continuation on both sides, that is flat according to both ends.
    reach = (ahead + behind + onward + back) / (distances + behind + onward + 1e-8)
    weights = trust * trust_back * reach  # (M, k); the trust is 0 where no direction is along the line
    strength = weights.sum(dim=1, keepdim=True)
    return weights / (strength + 1e-7), strength


def _flat_lengths(
    lines: torch.Tensor, level: _PickedLevel, rows: torch.Tensor, min_cosine: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For points `rows` and lines (M, k, 3): trust in the headings along a line, their length ahead and behind."""
    trust, cosines = _trust_along(lines, level, rows, min_cosine)
    lengths = level.lengths[rows]  # (M, k, A)
    return trust, (lengths * (cosines > min_cosine)).amax(dim=-1), (lengths * (-cosines > min_cosine)).amax(dim=-1)


def _trust_along(
    lines: torch.Tensor, level: _PickedLevel, rows: torch.Tensor, min_cosine: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_a trust_a 1(|line · heading_a| > min_cosine) of points `rows` (M, k), and the cosines (M, k, A)."""
    cosines = _dot(lines[:, :, None], level.headings[rows])
    return (level.trust[rows] * (cosines.abs() > min_cosine)).sum(dim=-1), cosines


def _decode(
    coarse_scores: torch.Tensor,
    coarse: _PickedLevel,
    fine: _Level,
    voters: torch.Tensor,
    own_weight: float,
    config: AFIConfig,
) -> torch.Tensor:
    """Z = l1( S Σ_voters w Z[voter] + (1e-8 + b mean(S)) X_fine )"""
    votes = _votes_in_long_rows if voters.device.type == "cpu" else _votes
    weights = votes(fine.points, voters, coarse, config.min_cosine) + config.base_vote  # (N, v)
    support = weights.sum(dim=1, keepdim=True) + 1e-8
    weights = weights / support + 1e-6 + 1e-10
    weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-8)
    votes_for = F.embedding_bag(voters, coarse_scores, mode="sum", per_sample_weights=weights)  # (N, C)
    return _l1(support * votes_for + (1e-8 + own_weight * support.mean()) * fine.scores)


def _votes(points: torch.Tensor, voters: torch.Tensor, coarse: _PickedLevel, min_cosine: float) -> torch.Tensor:
    """Trust of each voter (N, v) in directions along the line to the point; zero without such a direction."""
    chunk = _chunk_size(voters, voters.shape[1] * 3 * coarse.trust.shape[1])
    some = zip(points.split(chunk), voters.split(chunk), strict=True)
    lines = ((_unit(coarse.points[who] - here[:, None]), who) for here, who in some)
    return torch.cat([_trust_along(line, coarse, who, min_cosine)[0] for line, who in lines])


def _votes_in_long_rows(
    points: torch.Tensor, voters: torch.Tensor, coarse: _PickedLevel, min_cosine: float
) -> torch.Tensor:
    """The sums of `_votes` in half the time on a CPU with the paper's constants; 240 launches on an accelerator."""
    trust, order = coarse.trust.sort(dim=1, descending=True)
    headings = coarse.headings.gather(1, order[..., None].expand_as(coarse.headings))
    # Voters are sorted by their number of trusted directions, and pairs by their voter. The pairs whose voter has an
    # a-th trusted direction are then the first ones: one long row for each direction, without the untrusted rest.
    num_trusted = (trust > 0).sum(dim=1)
    ranking = num_trusted.argsort(descending=True)
    trust, headings = trust[ranking].T.contiguous(), headings[ranking].permute(1, 2, 0).contiguous()  # (A, 3, M)
    small = torch.int16 if len(ranking) < 1 << 15 else torch.int32  # sorts faster
    voter, pairs = ranking.argsort().to(small)[voters.flatten()].sort()
    voter = voter.int()  # (N v,)
    lines = _unit(coarse.points[ranking][voter] - points[pairs // voters.shape[1]]).T.contiguous()  # (3, N v)
    votes = torch.zeros_like(lines[0])
    num_voters = (num_trusted > torch.arange(len(trust), device=trust.device)[:, None]).sum(dim=1).int()  # (A,)
    for direction, end in enumerate(torch.searchsorted(voter, num_voters).tolist()):
        who = voter[:end]
        x, y, z = (heading.index_select(0, who) for heading in headings[direction])
        cosines = x.mul_(lines[0, :end]).add_(y.mul_(lines[1, :end])).add_(z.mul_(lines[2, :end]))
        votes[:end] += trust[direction].index_select(0, who).masked_fill_(cosines.abs_() <= min_cosine, 0)
    return torch.empty_like(votes).index_copy_(0, pairs, votes).view_as(voters)


def _sphere(num_directions: int) -> torch.Tensor:
    """Unit vectors (A, 3) of the Fibonacci sphere, float64."""
    steps = torch.arange(num_directions, dtype=torch.float64)
    y, angle = 1 - 2 * steps / (num_directions - 1), steps * math.pi * (3 - math.sqrt(5))
    radius = (1 - y * y).sqrt()
    return torch.stack([radius * angle.cos(), y, radius * angle.sin()], dim=1)


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Over the last axis of three, in a fixed order: a matrix product on CUDA may round to TF32, far from 0.995."""
    return left[..., 0] * right[..., 0] + left[..., 1] * right[..., 1] + left[..., 2] * right[..., 2]


def _length(vectors: torch.Tensor) -> torch.Tensor:
    return _dot(vectors, vectors).sqrt()


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / (_length(vectors) + 1e-8)[..., None]


def _l1(values: torch.Tensor) -> torch.Tensor:
    return values / (values.sum(dim=-1, keepdim=True) + 1e-9)


def _sum_to_one(scores: torch.Tensor) -> torch.Tensor:
    """The constants of `_l1` and of the votes take a part of rows whose evidence is of their size."""
    sums = scores.sum(dim=1, keepdim=True)
    return scores / sums.masked_fill(sums == 0, 1)
