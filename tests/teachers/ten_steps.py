"""Ten steps of pre-training on a label set: its labels and embeddings are of use."""

import torch

from uov_hf import UOVConfig, UOVFeatureExtractor, UOVForPreTraining
from uov_hf.labels import PointLabels
from uov_hf.training.collation import collate_tmp
from uov_hf.training.samples import TMPSamples


def losses_of_ten_steps(frames, label_set) -> list[float]:
    """Of a tiny network on coarse voxels; raises where a step leaves the weights as they are."""
    samples = TMPSamples(frames, label_set, PointLabels(label_set.folder), UOVFeatureExtractor(voxel_size=[0.8] * 3))
    batch, losses = collate_tmp([samples[0, 0]]), []
    torch.manual_seed(0)
    model = UOVForPreTraining(UOVConfig.from_preset("tiny", projection_dim=label_set.embed_dim))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(10):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert sum(changed) > 0.9 * len(changed)
    return losses
