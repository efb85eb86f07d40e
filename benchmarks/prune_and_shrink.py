"""Processor time of ``tdc.prune`` by groups and ``tdc.shrink`` together, which share one trace of the network.

Half of the units, random weights, one image of 224 x 224, one run. Names are torchvision's, yolov8n, or timm's where that is
installed:

    python benchmarks/prune_and_shrink.py resnet50 yolov8n ghostnet_100 mvitv2_tiny
"""

import argparse
import time
import warnings

import torch
import torchvision
from torch import nn
from yolov8 import YoloV8

import tdcompress as tdc
from tdcompress.processor import read_processor


def build(name: str) -> nn.Module:
    if name == "yolov8n":
        return YoloV8()
    if name in torchvision.models.list_models():
        return torchvision.models.get_model(name, weights=None)
    import timm  # no dependency: only for networks that torchvision lacks

    return timm.create_model(name, pretrained=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    examples = torch.randn(1, 3, 224, 224)
    print(f"{read_processor().name}, one thread, torch {torch.__version__}")
    for name in parser.parse_args().networks:
        model = build(name).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # which layers are left whole
            start = time.process_time()
            tdc.prune(model, granularity="unit", scope="group", fraction=0.5, example_inputs=examples)
            pruned = time.process_time()
            report = tdc.shrink(model, examples).report
            end = time.process_time()
        print(
            f"{name}: prune {pruned - start:.1f} s, shrink {end - pruned:.1f} s, together {end - start:.1f} s; "
            f"parameters {report.parameters_before:,} -> {report.parameters_after:,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
