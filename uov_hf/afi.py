"""Approximate flat interaction (AFI): labels of a scan, cleaned by evidence that flows along flat surfaces."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .ground_ring import GroundRing, check_names, find_ground
from .point_neighbors import farthest_points, nearest_points, where_to_search


CHUNK_CENTRES = 2048  # so many look around at a time on a CPU: what a cache holds
DEVICE_CHUNK_ELEMENTS = 1 << 27  # of one tensor on an accelerator (0.5 GB), where each chunk is a hundred launches


@dataclass(frozen=True)
class AFIConfig:
    """
    Constants of AFI; the defaults are the paper's (AFI keys of the official `config/annotation_free_*.yaml`), without
    the ground ring and the mask of the vehicle, which the paper's evaluation always has: they need a `ground_ring`.

    Args:
        level_sizes (`tuple[int, ...]`): points of the levels above the scan; 4096 divided by 3, 9, 27 and 81.
        level_shares (`tuple[float, ...]`, *optional*): the same as shares of the points of the scan, up to 1: it
            replaces `level_sizes`, so that a denser scan has denser levels.
        num_neighbors (`int`, defaults to 20): nearest points of the level below that a picked point gathers from.
        num_directions (`int`, defaults to 20): directions of the sphere that these neighbours are sorted into.
        num_voters (`int`, defaults to 6): nearest points of the level above that a point asks on the way back.
        min_cosine (`float`, defaults to 0.995): a line follows a direction where |cosine| is above this (5.7 degrees).
        min_count (`int`, defaults to 0): directions of the first level need more neighbours than this.
        base_vote (`float`, defaults to 0.0): what each voter weighs beside its trust in directions along the line, so
            that a point along whose lines nobody looks hears its nearest voters. At 0 it keeps its own evidence.
        own_weights (`tuple[float, ...]`, *optional*): what a point's own evidence weighs on the way back, for each
            level from the scan up. By default 0.3 where a level has three times the points of the one above it,
            0.01 elsewhere.
        ground_ring ([`GroundRing`], *optional*): how the ground around the vehicle, and the vehicle, are treated; as
            any other points, by default.
    """

    level_sizes: tuple[int, ...] = (1365, 455, 151, 50)
    level_shares: tuple[float, ...] | None = None
    num_neighbors: int = 20
    num_directions: int = 20
    num_voters: int = 6
    min_cosine: float = 0.995
    min_count: int = 0
    base_vote: float = 0.0
    own_weights: tuple[float, ...] | None = None
    ground_ring: GroundRing | None = None

    def __post_init__(self):
        for name in ("level_sizes", "level_shares", "own_weights"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, tuple(getattr(self, name)))  # the dataclass is frozen
        if not self.level_sizes or min(self.level_sizes) < 1:
            raise ValueError(f"`level_sizes` must be one or more numbers of points, got {self.level_sizes}.")
        if self.level_shares is not None and not all(0 < share <= 1 for share in self.level_shares or [0]):
            raise ValueError(f"`level_shares` must be one or more numbers up to 1, got {self.level_shares}.")
        num_levels = len(self.level_shares or self.level_sizes)
        if self.own_weights is not None and (len(self.own_weights) != num_levels or min(self.own_weights) < 0):
            raise ValueError(f"`own_weights` must be {num_levels} numbers from 0, got {self.own_weights}.")
        least = {"num_neighbors": 1, "num_directions": 2, "num_voters": 1, "min_count": 0, "base_vote": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ValueError(f"`{name}` must be {value} or more, got {getattr(self, name)}.")
        if not 0 <= self.min_cosine < 1:
            raise ValueError(f"`min_cosine` must be 0 or more and below 1, got {self.min_cosine}.")

    def sizes_for(self, num_points: int) -> tuple[int, ...]:
        """Points of the levels above a scan of so many."""
        if self.level_shares is None:
            return self.level_sizes
        return tuple(max(1, int(share * num_points)) for share in self.level_shares)

    @classmethod
    def from_dict(cls, settings: dict, label2id: dict[str, int] | None = None) -> "AFIConfig":
        """
        Constants as a checkpoint keeps them: those that differ from the paper's, and a `ground_ring` as a dictionary
        whose `classes` are names, numbered by `label2id` (`model.config.label2id`).

        Raises:
            ValueError: where a name is unknown, a value is out of range, or a ring has no `classes` or no `label2id`.
        """
        check_names(settings, cls)
        if settings.get("ground_ring") is None:
            return cls(**settings)
        if label2id is None or "classes" not in settings["ground_ring"]:
            raise ValueError(
                "A `ground_ring` names the `classes` that ground may have, and `label2id` numbers them: got "
                f"{settings['ground_ring']} and `label2id` {label2id}. Pass `label2id=model.config.label2id`."
            )
        ring = dict(settings["ground_ring"])
        ring = GroundRing.from_names(ring.pop("classes"), label2id, **ring)
        return cls(**{**settings, "ground_ring": ring})


# One level of all points, where every voter is heard: what mends wrong labels best (docs/method.md, section 5.2).
DENSE = AFIConfig(level_shares=(1.0,), base_vote=0.01)


def labels_to_scores(labels: torch.Tensor | np.ndarray, num_labels: int, ignore_index: int = 255):
    """
    One-hot scores (N, num_labels), float32, of labels (N,); a point of `ignore_index` has no evidence: a row of zeros.
    """
    if not isinstance(labels, torch.Tensor):
        return labels_to_scores(torch.tensor(np.asarray(labels, np.int64)), num_labels, ignore_index).numpy()
    classes = torch.arange(num_labels, device=labels.device)
    scores = (labels[..., None] == classes) & (labels != ignore_index)[..., None]
    if labels.ndim != 1 or not (scores.any(dim=1) | (labels == ignore_index)).all():
        raise ValueError(
            f"`labels` must have shape (num_points,), each from 0 to {num_labels - 1} or {ignore_index}, got shape "
            f"{tuple(labels.shape)} and values {labels.unique().tolist()[:20]}."
        )
    return scores.float()


@torch.no_grad()
def approximate_flat_interaction(points, scores, config: AFIConfig | None = None, num_points=None):
    """
    Scores of every point after evidence has flowed along the flat surfaces that it lies on (official `afi/afi.py`).

    Level by level some points are picked, as far from each other as can be. A picked point remembers in which
    directions it saw neighbours and of what classes; from the second level on only directions count that both ends of
    a line know. On the way back a point asks the nearest picked points, and those answer that know a direction along
    the line between them. Nothing is trained, and there is no gradient.

    - Picks start at the first point, so the order of points matters where it changes the first. Of equally far points,
      and of equally near ones, the lowest index comes first. Points within 3 cm of the origin are never picked later.
    - Picks and neighbours are found on the CPU, for every device the same: each pick goes over the points of one slab,
      a tenth of a scan on average, and neighbours come from a k-d tree. Positions and indices go to the device of
      `scores`; its launches grow by a hundred with every 100,000 points of a level, and not otherwise. Without scipy
      neighbours come from the distances to all points, in chunks, on that device.
    - A level that would have as many points as the one below it, or more, has the same points; a neighbourhood has at
      most all of them.
    - A point with a coordinate that is NaN or infinite takes no part. It keeps its scores, divided by their sum.
    - A row of zeros is a point without evidence. It takes what reaches it, and stays zero where nothing does.

    Args:
        points (`(num_points, 3 or more)`): metres, in the lidar frame; only the first three columns are looked at.
        scores (`(num_points, C)`): one-hot labels ([`labels_to_scores`]) or probabilities; a row that sums to less is
            weaker evidence.
        config ([`AFIConfig`], *optional*): the constants, by default the paper's without its ground ring.
        num_points (`(num_scans,)`, *optional*): points of each scan of a batch; by default there is one scan.

    Returns:
        `(num_points, C)`, rows that sum to one, to somewhat less where evidence is faint, or to zero; numpy for numpy,
        else torch on the device of `scores`. In the dtype of `scores` where that is floating; the arithmetic is in the
        wider dtype of both, float32 at least.

    Raises:
        ValueError: where shapes do not fit, or scores are negative or not finite (logits go through a softmax first).
    """
    if not isinstance(scores, torch.Tensor):
        tensors = torch.tensor(np.asarray(points)), torch.tensor(np.asarray(scores))
        return approximate_flat_interaction(*tensors, config, num_points).numpy()
    config = AFIConfig() if config is None else config
    points = where_to_search(torch.as_tensor(points), scores.device)
    num_points = [len(points)] if num_points is None else torch.as_tensor(num_points).tolist()
    _check(points, scores, num_points, config)

    dtype = torch.promote_types(torch.promote_types(points.dtype, scores.dtype), torch.float32)
    points, refined = points[:, :3].to(dtype), scores.to(dtype, copy=True)
    with torch.autocast(scores.device.type, enabled=False):
        for scan, answer in zip(points.split(num_points), refined.split(num_points), strict=True):
            answer.copy_(_refine(scan, answer, config))
    return refined.to(scores.dtype) if scores.is_floating_point() else refined


def _check(points: torch.Tensor, scores: torch.Tensor, num_points: list[int], config: AFIConfig) -> None:
    if (points.ndim, scores.ndim) != (2, 2) or points.shape[1] < 3 or len(scores) != len(points):
        raise ValueError(
            "`points` must have shape (num_points, 3 or more) and `scores` (num_points, number of classes), got "
            f"{tuple(points.shape)} and {tuple(scores.shape)}. Labels become scores by `labels_to_scores`."
        )
    if not ((scores >= 0) & (scores < math.inf)).all():
        raise ValueError(
            "`scores` must be finite and not negative: one-hot labels or probabilities, got values from "
            f"{scores.min()} to {scores.max()}. Logits go through a softmax first."
        )
    if sum(num_points) != len(points):
        raise ValueError(f"`num_points` sums to {sum(num_points)}, and there are {len(points)} points.")
    if config.ground_ring is not None and max(config.ground_ring.classes) >= scores.shape[1]:
        raise ValueError(f"`scores` has {scores.shape[1]} columns, too few for {config.ground_ring}.")


def _refine(points: torch.Tensor, scores: torch.Tensor, config: AFIConfig) -> torch.Tensor:
    """One scan: points that are not finite put aside, the ground ring before and after, the network between."""
    finite = points.isfinite().all(dim=1)
    if not finite.all():
        rows = finite.nonzero().squeeze(1)
        of_scores = rows.to(scores.device)
        return _l1(scores).index_copy(0, of_scores, _refine(points[rows], scores[of_scores], config))
    if not len(points):
        return scores
    if config.ground_ring is None:
        return _interact(points, scores, config)
    ground, vehicle = (found.to(scores.device) for found in find_ground(points, config.ground_ring))
    answer = _interact(points, scores.masked_fill((ground | vehicle)[:, None], 0), config)
    is_other = torch.ones(scores.shape[1], dtype=torch.bool)
    is_other[list(config.ground_ring.classes)] = False
    among_ground = answer.masked_fill(is_other.to(scores.device), 0)
    # A ground point without any evidence for ground keeps its answer: zeros would read as the first class.
    return torch.where((ground & among_ground.any(dim=1))[:, None], _l1(among_ground), answer)


@dataclass
class _Level:
    """Points (M, 3), class scores (M, C); above the scan also what each point knows of each of its A directions."""

    points: torch.Tensor
    scores: torch.Tensor
    trust: torch.Tensor | None = None  # (M, A): pi, the share of what was seen that lies in this direction
    headings: torch.Tensor | None = None  # (M, A, 3): mu / |mu|, where the neighbours seen in it lie on average
    lengths: torch.Tensor | None = None  # (M, A): |mu|, metres


def _interact(points: torch.Tensor, scores: torch.Tensor, config: AFIConfig) -> torch.Tensor:
    levels, all_voters = [_Level(points.to(scores.device), scores)], []
    directions = _sphere(config.num_directions).to(scores.device, points.dtype)
    for size in config.sizes_for(len(points)):
        centres, neighbors, voters = _look_up(points, min(size, len(points)), config)
        points = points[centres]
        levels.append(_encode(levels[-1], centres.to(scores.device), neighbors.to(scores.device), directions, config))
        all_voters.append(voters.to(scores.device))
    answer = levels[-1].scores
    for number in reversed(range(len(all_voters))):
        coarse, fine = levels[number + 1], levels[number]
        own_weight = _own_weight(number, coarse, fine, config)
        answer = _decode(answer, coarse, fine, all_voters[number], own_weight, config)
    return answer


def _look_up(points: torch.Tensor, size: int, config: AFIConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of points (N, 3): rows of those picked (M,), of each pick's neighbours (M, k), and the nearest picks (N, v)."""
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


def _encode(parent: _Level, centres, neighbors, directions, config: AFIConfig) -> _Level:
    """X_s = l1( I Σ_a rho_a H_a + 0.1 X_parent[centre] + 1e-8 max_neighbours X_parent )"""
    width = neighbors.shape[1] * max(3 * len(directions), parent.scores.shape[1])
    chunk = _chunk_size(centres, width)
    some = zip(centres.split(chunk), neighbors.split(chunk), strict=True)
    views = [_look_around(parent, *rows, directions, config) for rows in some]
    seen, least, strength, trust, headings, lengths = (torch.cat(parts) for parts in zip(*views, strict=True))
    if parent.trust is not None:
        strength = strength / (strength.mean() + 1e-8)
    return _Level(parent.points[centres], _l1(strength * seen + least), trust, headings, lengths)


def _chunk_size(rows: torch.Tensor, width: int) -> int:
    """Rows at a time, where a tensor has `width` elements for each."""
    return CHUNK_CENTRES if rows.device.type == "cpu" else DEVICE_CHUNK_ELEMENTS // width + 1


def _look_around(parent: _Level, centres, neighbors, directions, config: AFIConfig) -> tuple[torch.Tensor, ...]:
    """Of centres (M,) and their neighbours (M, k): scores seen (M, C), the least, strength (M, 1), and directions."""
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

    if parent.trust is None:
        trust = torch.where(counts > config.min_count, counts, 0)
        trust, strength = trust / (trust.sum(dim=-1, keepdim=True) + 1e-8), torch.ones_like(counts[:, :1])
    else:
        weights, strength = _agreement(parent, centres, neighbors, lines, _length(offsets), config.min_cosine)
        trust = (in_sector @ weights[..., None]).squeeze(-1)  # (M, A)
    nearness = _l1(trust / (lengths + 1e-8))  # (M, A): nearer directions weigh more
    seen = (nearness[:, None] @ histograms).squeeze(1)  # (M, C)
    least = 0.1 * parent.scores[centres] + 1e-8 * parent.scores[neighbors].amax(dim=1)
    return seen, least, strength, trust, headings, lengths


def _agreement(parent, centres, neighbors, lines, distances, min_cosine) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (M, k) of lines along which both ends know a direction, and their sum (M, 1) before they share it."""
    knows, ahead, behind = _look_along(lines, parent, centres[:, None], min_cosine)
    knows_back, onward, back = _look_along(lines, parent, neighbors, min_cosine)
    # How much of the line, and of what lies behind and beyond it, both ends remember as flat.
    reach = (ahead + behind + onward + back) / (distances + behind + onward + 1e-8)
    weights = knows * knows_back * reach * (ahead + behind != 0) * (onward + back != 0)  # (M, k)
    strength = weights.sum(dim=1, keepdim=True)
    return weights / (strength + 1e-7), strength


def _look_along(lines, level, rows, min_cosine) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of points `rows`, for lines (M, k, 3): trust in the headings along them, their length ahead, and behind."""
    knows, cosines = _trust_along(lines, level, rows, min_cosine)
    lengths = level.lengths[rows]  # (M, k, A)
    return knows, (lengths * (cosines > min_cosine)).amax(dim=-1), (lengths * (-cosines > min_cosine)).amax(dim=-1)


def _trust_along(lines, level, rows, min_cosine) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ_a trust_a 1(|line · heading_a| > min_cosine) of points `rows` (M, k), and the cosines (M, k, A)."""
    cosines = _dot(lines[:, :, None], level.headings[rows])
    return (level.trust[rows] * (cosines.abs() > min_cosine)).sum(dim=-1), cosines


def _decode(answer, coarse: _Level, fine: _Level, voters, own_weight: float, config: AFIConfig) -> torch.Tensor:
    """Z = l1( S Σ_voters w Z[voter] + (1e-8 + b mean(S)) X_fine )"""
    votes = _votes_in_long_rows if voters.device.type == "cpu" else _votes
    weights = votes(fine.points, voters, coarse, config.min_cosine) + config.base_vote  # (N, v)
    support = weights.sum(dim=1, keepdim=True) + 1e-8
    weights = weights / support + 1e-6 + 1e-10
    weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-8)
    heard = F.embedding_bag(voters, answer, mode="sum", per_sample_weights=weights)  # (N, C)
    return _l1(support * heard + (1e-8 + own_weight * support.mean()) * fine.scores)


def _votes(points: torch.Tensor, voters: torch.Tensor, coarse: _Level, min_cosine: float) -> torch.Tensor:
    """Trust of each voter (N, v) in directions along the line to the point: only those vote that look along it."""
    chunk = _chunk_size(voters, voters.shape[1] * 3 * coarse.trust.shape[1])
    some = zip(points.split(chunk), voters.split(chunk), strict=True)
    lines = ((_unit(coarse.points[who] - here[:, None]), who) for here, who in some)
    return torch.cat([_trust_along(line, coarse, who, min_cosine)[0] for line, who in lines])


def _votes_in_long_rows(points: torch.Tensor, voters: torch.Tensor, coarse: _Level, min_cosine: float) -> torch.Tensor:
    """The same sums: on a CPU, with the paper's constants, in half the time; elsewhere it would be 240 launches."""
    trust, order = coarse.trust.sort(dim=1, descending=True)
    headings = coarse.headings.gather(1, order[..., None].expand_as(coarse.headings))
    # With the best informed voters first, and the pairs in the order of their voters, the pairs whose voter trusts an
    # a-th direction are the first so many: votes go by direction in long rows, past all that nobody trusts.
    num_trusted = (trust > 0).sum(dim=1)
    ranking = num_trusted.argsort(descending=True)
    trust, headings = trust[ranking].T.contiguous(), headings[ranking].permute(1, 2, 0).contiguous()  # (A, 3, M)
    small = torch.int16 if len(ranking) < 1 << 15 else torch.int32  # sorts faster
    asked, pairs = ranking.argsort().to(small)[voters.flatten()].sort()
    asked = asked.int()  # (N v,)
    lines = _unit(coarse.points[ranking][asked] - points[pairs // voters.shape[1]]).T.contiguous()  # (3, N v)
    votes = torch.zeros_like(lines[0])
    num_informed = (num_trusted > torch.arange(len(trust), device=trust.device)[:, None]).sum(dim=1).int()  # (A,)
    for direction, end in enumerate(torch.searchsorted(asked, num_informed).tolist()):
        who = asked[:end]
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
