"""The tensors of an official checkpoint, by the names and shapes that docs/how_to/convert.md gives; random."""

import torch


STEPS = "conv1p1s2 conv2p2s2 conv3p4s2 conv4p8s2 convtr4p16s2 convtr5p8s2 convtr6p4s2 convtr7p2s2".split()
NORMS = "bn1 bn2 bn3 bn4 bntr4 bntr5 bntr6 bntr7".split()
FULL = {"stem": 32, "widths": [32, 64, 128, 256, 256, 128, 96, 96], "depths": [2, 3, 4, 6, 2, 2, 2, 2]}
SMALL = {"stem": 4, "widths": [4, 6, 8, 10, 10, 8, 6, 6], "depths": [1, 2, 1, 2, 1, 1, 2, 1]}


def official_tensors(num_outputs, stem, widths, depths, seed=0):
    torch.manual_seed(seed)
    tensors = {}

    def conv(name, *shape):
        tensors[f"{name}.kernel"] = torch.randn(shape) / (shape[-2] * 4) ** 0.5

    def norm(name, width):
        own = {"weight": 1 + 0.1 * torch.randn(width), "bias": 0.1 * torch.randn(width)}
        own |= {"running_mean": 0.1 * torch.randn(width), "running_var": 1 + torch.rand(width)}
        own["num_batches_tracked"] = torch.tensor(7)
        tensors.update({f"{name}.bn.{key}": value for key, value in own.items()})

    conv("conv0p1s1", 27, 1, stem)
    norm("bn0", stem)
    inputs, skips = stem, [widths[2], widths[1], widths[0], stem]
    for index, width in enumerate(widths):
        step_width = inputs if index < 4 else width
        conv(STEPS[index], 8, inputs, step_width)
        norm(NORMS[index], step_width)
        inputs = step_width + (skips[index - 4] if index >= 4 else 0)
        for place in range(depths[index]):
            block = f"block{index + 1}.{place}"
            conv(f"{block}.conv1", 27, inputs, width)
            norm(f"{block}.norm1", width)
            conv(f"{block}.conv2", 27, width, width)
            norm(f"{block}.norm2", width)
            if inputs != width:
                conv(f"{block}.downsample.0", inputs, width)
                norm(f"{block}.downsample.1", width)
            inputs = width
    conv("final", inputs, num_outputs)
    tensors["final.bias"] = torch.randn(1, num_outputs)
    return tensors
