"""Makes the small files in this folder with PyTorch (2.15): python make_weights.py. Needs ../golden/{networks,fill}.py.

tensors.pth, tensors_legacy.pth   every kind of number and of view; element i (in row-major order of what the view shows)
                                  is a small multiple of 1/4, so that f16 and bf16 hold it exactly
wrapped.pth                       the same names in a checkpoint of DataParallel, with settings beside the weights
malicious.pth                     a pickle that asks for os.system
unext_tiny.pth                    a whole UNeXt (widths 2,2,2,3,3) in the layout of UNeXt-pytorch
unext_tiny.safetensors            PyTorch's logits of golden image dev/input [1, 3, 32, 64] in eval mode, in f64, rounded once
"""
import collections
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
import fill
import networks
import safetensors.torch
import torch


def tensors():
    count = torch.arange(24, dtype=torch.float32) / 4 - 1
    image = count.reshape(2, 3, 4)
    return collections.OrderedDict([
        ("f32", image.clone()),
        ("f64", image.double()),
        ("f16", image.half()),
        ("bf16", image.bfloat16()),
        ("i64", torch.tensor(7)),
        ("transposed", image.permute(2, 0, 1)),      # not contiguous, shares its storage with the two below
        ("tail", image[1, 1:]),                      # starts within the storage
        ("every_second", count[::2]),
        ("parameter", torch.nn.Parameter(torch.tensor([0.5, -0.25]))),
        ("empty", torch.zeros(0, 3)),
    ])


class Malicious:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def main():
    path = lambda name: os.path.join(HERE, name)
    torch.save(tensors(), path("tensors.pth"))
    torch.save(tensors(), path("tensors_legacy.pth"), _use_new_zipfile_serialization=False)
    parallel = collections.OrderedDict(("module." + name, value) for name, value in tensors().items())
    torch.save({"epoch": 3, "best": 0.5, "args": {"lr": 1e-3, "names": ["a", "b"]}, "state_dict": parallel}, path("wrapped.pth"))
    torch.save({"weight": torch.zeros(2), "more": Malicious()}, path("malicious.pth"))
    model = fill.fill_model("dev", networks.UNeXt(widths=(2, 2, 2, 3, 3))).eval()
    torch.save(model.state_dict(), path("unext_tiny.pth"), _use_new_zipfile_serialization=False)
    image = torch.from_numpy(fill.unit("dev", "input", (1, 3, 32, 64)))
    with torch.no_grad():
        logits = model.double()(image.double()).float()
    safetensors.torch.save_file({"logits": logits}, path("unext_tiny.safetensors"))


main()
