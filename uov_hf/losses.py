"""The two contrastive terms of tri-modal pre-training (TMP), and the Lovász-softmax of segmentation.

The host never waits for an accelerator here: rows are masked, not selected, so that no size depends on values.
"""

import math

import torch
import torch.nn.functional as F

from .array_checks import check_array, check_ids
from .configuration_uov import IGNORED


def pool_superpoints(
    point_embeds: torch.Tensor,
    superpoint_ids: torch.Tensor,
    num_superpoints: int,
    point_rows: torch.Tensor | None = None,
) -> torch.Tensor:
    """k_b = 1/n_b Σ_{m: b(m)=b} f_m: the plain mean of each superpoint's embeddings, not normalised again.

    Args:
        point_embeds (`torch.Tensor` of shape `(M, D)`):
            One row per (point, superpoint) pair. A point seen by two cameras has two.
        superpoint_ids (`torch.LongTensor` of shape `(M,)`):
            The superpoint of each pair, from 0 to `num_superpoints - 1`, in any order.
        num_superpoints (`int`): The number S of superpoints.
        point_rows (`torch.LongTensor` of shape `(M,)`, *optional*):
            The row of `point_embeds` of each pair; by default pair m has row m. Points of one voxel can share a row,
            which saves an array of size (M, D).

    Returns:
        `torch.Tensor` of shape `(S, D)`: The means; zero for a superpoint without pairs.

    Raises:
        ValueError: An array has another shape, or an id or row is out of range. On an accelerator, where a check of
            values would stop the queue, all is NaN if an id is out of range.

    Source: method 4.2. The official code divides by n_b + 1e-6.
    """
    check_array("point_embeds", point_embeds, ("num_rows", "D"), "f")
    if point_rows is None:
        point_rows = torch.arange(len(point_embeds), device=point_embeds.device)
    check_ids("point_rows", point_rows, "num_pairs", len(point_embeds))
    if point_rows.shape != superpoint_ids.shape:
        raise ValueError(
            f"`superpoint_ids` must have one id for each of the {len(point_rows)} pairs, "
            f"got shape {tuple(superpoint_ids.shape)}."
        )
    right = are_in_range(superpoint_ids, num_superpoints, "superpoint_ids")
    # A bag of rows per superpoint. Its gradient is summed in a fixed order. That of indexing or `index_add` depends on
    # the number of threads, and both are ten times slower.
    sorted_ids, order = superpoint_ids.sort(stable=True)
    starts = torch.searchsorted(sorted_ids, torch.arange(num_superpoints, device=order.device, dtype=sorted_ids.dtype))
    means = F.embedding_bag(point_rows[order].long(), point_embeds, starts, mode="mean")  # (S, D)
    return nan_unless(right, means)


def superpixel_superpoint_loss(
    superpoint_embeds: torch.Tensor,
    segment_embeds: torch.Tensor,
    scene_ids: torch.Tensor | None = None,
    temperature: float = 0.07,
    negative_embeds: torch.Tensor | None = None,
    has_points: torch.Tensor | None = None,
) -> torch.Tensor:
    """L_IP = -1/S Σ_b log( exp(k_b·q_b / τ) / Σ_b' exp(k_b·q_b' / τ) ): pulls a superpoint to its own image segment.

    It is pushed away from the other segments: those of its scene if `scene_ids` is passed, else all.

    Args:
        superpoint_embeds (`torch.Tensor` of shape `(S, D)`): Mean point embeddings k.
        segment_embeds (`torch.Tensor` of shape `(S, D)`): The teacher's embedding q of the same segments, unit length.
        scene_ids (`torch.LongTensor` of shape `(S,)`, *optional*):
            The scene of each superpoint. The sum over a batch is then the sum of the single scenes.
        temperature (`float`, *optional*, defaults to 0.07): τ.
        negative_embeds (`torch.Tensor` of shape `(K, D)`, *optional*):
            Segments of other micro-batches and ranks, negatives of every superpoint.
        has_points (`torch.BoolTensor` of shape `(S,)`, *optional*):
            The superpoints in the loss; the others count neither as superpoints nor as segments.

    Returns:
        `torch.Tensor` of shape `()`: The mean over superpoints; zero with a graph if there are none. NaN if an
        embedding in the loss is NaN.

    Raises:
        ValueError: Shapes or dtypes do not fit, or `temperature` is not above 0.

    Source: method 4.3; eq. L_IP. The official negatives are those of one GPU's batch.
    """
    if superpoint_embeds.shape != segment_embeds.shape:
        raise ValueError(
            "`superpoint_embeds` and `segment_embeds` must have one row for each superpoint, got shapes "
            f"{tuple(superpoint_embeds.shape)} and {tuple(segment_embeds.shape)}."
        )
    check_array("superpoint_embeds", superpoint_embeds, ("num_superpoints", "D"), "f")
    others = {"segment_embeds": segment_embeds, "negative_embeds": negative_embeds}
    _check_fit(superpoint_embeds, others, temperature, has_points)
    candidates = segment_embeds if negative_embeds is None else torch.cat([segment_embeds, negative_embeds])
    logits = superpoint_embeds @ candidates.T / temperature  # (S, S + K)
    if scene_ids is not None:
        if scene_ids.shape != logits.shape[:1]:
            raise ValueError(
                f"`scene_ids` must have one scene for each of the {len(logits)} superpoints, "
                f"got shape {tuple(scene_ids.shape)}."
            )
        elsewhere = scene_ids[:, None] != scene_ids[None, :]  # (S, S)
        logits = logits.masked_fill(F.pad(elsewhere, (0, logits.shape[1] - len(scene_ids))), -torch.inf)
    if has_points is not None:
        left_out = F.pad(~has_points, (0, logits.shape[1] - len(has_points)))  # (S + K,)
        # The rows that are left out need finite logits: their gradient is multiplied by zero.
        logits = logits.masked_fill(left_out, -torch.inf).masked_fill(~has_points[:, None], 0.0)
    own_segment = torch.arange(len(logits), device=logits.device)
    return _mean(F.cross_entropy(logits, own_segment, reduction="none"), has_points)


def soft_text_targets(
    prompt_embeds: torch.Tensor, prompt_groups: torch.Tensor, hard_weight: float = 0.2
) -> torch.Tensor:
    """y_l[c] ∝ h·1[c = l] + (1 - h)·max(0, t_l·t_c) in the group of prompt l: the target of a superpoint labelled l.

    Args:
        prompt_embeds (`torch.Tensor` of shape `(P, D)`): Text embeddings t, unit length.
        prompt_groups (`torch.LongTensor` of shape `(P,)`):
            Prompts of one group are synonyms ("car", "sedan"); targets do not cross groups.
        hard_weight (`float`, *optional*, defaults to 0.2): h; at 1 the targets are one-hot.

    Returns:
        `torch.Tensor` of shape `(P, P)`: Rows sum to one; no target is negative, also of opposed prompts. A row is NaN
        where `hard_weight` is 0 and the prompt's embedding is 0 or NaN.

    Raises:
        ValueError: Shapes do not fit, or `hard_weight` is not from 0 to 1.

    Source: method 4.3; y_b is the row of the superpoint's label.
    """
    check_array("prompt_embeds", prompt_embeds, ("num_prompts", "D"), "f")
    if not 0 <= hard_weight <= 1:
        raise ValueError(f"`hard_weight` must be a share from 0 to 1, got {hard_weight}.")
    if prompt_groups.shape != prompt_embeds.shape[:1]:
        raise ValueError(
            f"`prompt_groups` must have one group for each of the {len(prompt_embeds)} prompts, "
            f"got shape {tuple(prompt_groups.shape)}."
        )
    same_group = prompt_groups[:, None] == prompt_groups[None, :]  # (P, P)
    similarity = torch.where(same_group, (prompt_embeds @ prompt_embeds.T).clamp(min=0), 0)
    one_hot = torch.eye(len(similarity), dtype=similarity.dtype, device=similarity.device)
    targets = hard_weight * one_hot + (1 - hard_weight) * similarity
    return targets / targets.sum(dim=1, keepdim=True)


def text_superpoint_loss(
    superpoint_embeds: torch.Tensor,
    prompt_embeds: torch.Tensor,
    segment_labels: torch.Tensor,
    targets: torch.Tensor,
    temperature: float = 0.07,
    has_points: torch.Tensor | None = None,
) -> torch.Tensor:
    """L_TP = -1/S Σ_b Σ_c y_b[c] log softmax_c(k_b·t_c / τ): pulls a superpoint to its prompts.

    Args:
        superpoint_embeds, temperature, has_points:
            See [`superpixel_superpoint_loss`].
        prompt_embeds (`torch.Tensor` of shape `(P, D)`): Text embeddings t of all prompts, unit length.
        segment_labels (`torch.LongTensor` of shape `(S,)`): The prompt that the teacher predicted for the segment.
        targets (`torch.Tensor` of shape `(P, P)`):
            [`soft_text_targets`]: row l is the distribution of a superpoint labelled l.

    Returns:
        `torch.Tensor` of shape `()`: The mean over superpoints; zero with a graph if there are none. NaN if an
        embedding in the loss is NaN, and on an accelerator if a label is no prompt.

    Raises:
        ValueError: Shapes or dtypes do not fit, a label is no prompt (on a CPU), or `temperature` is not above 0.

    Source: method 4.3; eq. L_TP.
    """
    check_array("superpoint_embeds", superpoint_embeds, ("num_superpoints", "D"), "f")
    _check_fit(superpoint_embeds, {"prompt_embeds": prompt_embeds}, temperature, has_points)
    num_prompts = len(prompt_embeds)
    if targets.shape != (num_prompts, num_prompts):
        raise ValueError(
            f"`targets` must have a row and a column for each of the {num_prompts} prompts, "
            f"got shape {tuple(targets.shape)}. Make them with `soft_text_targets`."
        )
    if segment_labels.shape != superpoint_embeds.shape[:1]:
        raise ValueError(
            f"`segment_labels` must have one prompt for each of the {len(superpoint_embeds)} superpoints, "
            f"got shape {tuple(segment_labels.shape)}."
        )
    right = are_in_range(segment_labels, num_prompts, "segment_labels")
    rows = torch.where(right, segment_labels, 0)
    log_probabilities = F.log_softmax(superpoint_embeds @ prompt_embeds.T / temperature, dim=1)  # (S, P)
    return nan_unless(right, _mean(-(targets[rows] * log_probabilities).sum(dim=1), has_points))


def lovasz_softmax(probabilities: torch.Tensor, labels: torch.Tensor, ignore_index: int = IGNORED) -> torch.Tensor:
    """mean_c Σ_i m_i D_i over the classes c in `labels`: a convex surrogate of one minus the mean IoU.

    m_i = |1[y_i = c] - p_i(c)| in descending order, and D_i = J_i - J_{i-1}, where J_i is the Jaccard loss of c with
    errors in the first i rows alone. The gradient flows through m only.

    Args:
        probabilities (`torch.Tensor` of shape `(N, C)`): Rows sum to one: logits after a softmax.
        labels (`torch.LongTensor` of shape `(N,)`): Classes, from 0 to C - 1.
        ignore_index (`int`, *optional*, defaults to 255): The label of ignored rows.

    Returns:
        `torch.Tensor` of shape `()`: The loss; zero with a graph if no row has a label. NaN if a probability of a
        row with a label is NaN, and on an accelerator if a label is no class.

    Raises:
        ValueError: Shapes or dtypes do not fit, or a label is no class (on a CPU).

    Source: method 5; Berman et al., "The Lovász-Softmax loss" (2018), algorithm 1.
    """
    check_array("probabilities", probabilities, ("num_rows", "C"), "f")
    if labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"`labels` must have one class for each of the {len(probabilities)} rows of `probabilities`, "
            f"got shape {tuple(labels.shape)}."
        )
    right = are_in_range(labels, probabilities.shape[1], "labels", ignore_index)
    labelled = (labels != ignore_index)[:, None]  # (N, 1)
    of_class = (labels[:, None] == torch.arange(probabilities.shape[1], device=labels.device)) & labelled  # (N, C)
    errors = (of_class.to(probabilities.dtype) - probabilities).abs()
    # Rows without a label come last, where they change no slope. A stable order, so that the gradients of equal errors
    # do not depend on the threads.
    order = errors.detach().masked_fill(~labelled, -1).argsort(dim=0, descending=True, stable=True)
    errors = errors.masked_fill(~labelled, 0).gather(0, order)
    losses = (errors * _jaccard_slopes(of_class.gather(0, order), errors.dtype)).sum(dim=0)  # (C,)
    return nan_unless(right, _mean(losses, of_class.any(dim=0)))


def _jaccard_slopes(of_class: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """D_i = J_i - J_{i-1} of each column, without a difference of almost equal numbers, which float32 would round.

    With the intersection I_i = G - Σ_{j≤i} g_j and the union U_i = G + Σ_{j≤i} (1 - g_j), J_i = 1 - I_i / U_i. So D_i
    is 1 / U_i where point i has the class, and I_i / (U_i (U_i - 1)) where it has another.
    """
    size = of_class.sum(dim=0)  # (K,)
    intersection = (size - of_class.cumsum(dim=0)).to(dtype)  # (N', K)
    union = (size + (~of_class).cumsum(dim=0)).to(dtype)
    return torch.where(of_class, 1 / union, intersection / (union * (union - 1)).clamp(min=1))


def _mean(losses: torch.Tensor, counted: torch.Tensor | None = None) -> torch.Tensor:
    """The mean of the counted losses, zero if there are none, so that a rank without superpoints can run backward."""
    if counted is None:
        return losses.sum() / max(len(losses), 1)
    return losses.masked_fill(~counted, 0).sum() / counted.sum().clamp(min=1)


def are_in_range(ids: torch.Tensor, num_ids: int, name: str, also: int | None = None) -> torch.Tensor:
    """Whether all ids are at least 0 and below `num_ids`, or `also`: a scalar bool for [`nan_unless`].

    Raises:
        ValueError: They are no whole numbers of shape `(any,)` or, on a CPU, one is out of range; the message has
            `name`. On an accelerator, reading the result would stop the queue.
    """
    check_ids(name, ids, "any", num_ids, also)
    right = (ids >= 0) & (ids < num_ids)
    return (right if also is None else right | (ids == also)).all()


def nan_unless(right: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`values`, or NaN everywhere if a check failed whose result the host does not read."""
    return torch.where(right, values, torch.nan)


def _check_fit(
    superpoint_embeds: torch.Tensor,
    others: dict[str, torch.Tensor | None],
    temperature: float,
    has_points: torch.Tensor | None,
) -> None:
    """Check that further embeddings have the dimensions and the dtype of the superpoints, and the other settings."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"`temperature` must be above 0 and finite, got {temperature}.")
    for name, embeds in others.items():
        if embeds is None:
            continue
        check_array(name, embeds, ("any", superpoint_embeds.shape[1]), "f")
        # Under autocast, the products convert both.
        if embeds.dtype != superpoint_embeds.dtype and not torch.is_autocast_enabled(embeds.device.type):
            raise ValueError(
                f"`{name}` must be {superpoint_embeds.dtype}, as `superpoint_embeds`, got {embeds.dtype}."
            )
    if has_points is not None:
        check_array("has_points", has_points, (len(superpoint_embeds),), "b")
