#!/usr/bin/env python3
"""Training steps of the same networks in PyTorch, to stand beside `shadegrad bench NAME --train`.

    python3 bench/torch_steps.py unext:f32 unext:compile unext:compile,graphs unet:f32 unet:amp,nhwc
    OMP_NUM_THREADS=1 python3 bench/torch_steps.py unext:cpu,nhwc unext:cpu

Each word is NETWORK:MODE, the network unext, unet or resunet, the mode some of, joined by commas:
  f32      strict f32 (TF32 off)          tf32    TF32 matrix units        amp      torch.autocast to f16, with a GradScaler
  nhwc     channels last                  compile torch.compile            graphs   with compile: CUDA graphs ("reduce-overhead")

A step is forward, BCE + Dice, backward and Adam (fused), batch 8, 256x256. A JSON line for each: step_ms is the median wall time of a
step with the device waited for after it, row_ms that of steps in a row. Needs a card and PyTorch 2.
"""

import json
import pathlib
import sys
import time

if not sys.argv[1:]:
    sys.exit(__doc__)
try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("torch_steps.py needs PyTorch 2 in this Python; see pytorch.org")

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "kernels-tests" / "golden"))
import networks  # noqa: E402

SIZE, WARM = 256, 5
NETWORKS = {"unext": networks.UNeXt, "unet": networks.UNet, "resunet": networks.ResUNet}
MODES = {"f32", "tf32", "amp", "nhwc", "compile", "graphs", "cpu"}


def loss_of(logits, masks):
    p, t = torch.sigmoid(logits).flatten(1), masks.flatten(1)
    dice = (2 * (p * t).sum(1) + 1e-5) / (p.sum(1) + t.sum(1) + 1e-5)
    return 0.5 * F.binary_cross_entropy_with_logits(logits, masks) + 1 - dice.mean()


def run(name, mode):
    on_card = "cpu" not in mode
    device, batch = ("cuda", 8) if on_card else ("cpu", 2)
    if on_card and not torch.cuda.is_available():
        sys.exit(f"{name}:{','.join(mode)} needs a card that PyTorch can use; {name}:cpu,nhwc runs without")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = "tf32" in mode
    torch.backends.cudnn.benchmark = True
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    net = NETWORKS[name]().to(device)
    images = torch.randn(batch, 3, SIZE, SIZE, device=device)
    masks = (torch.rand(batch, 1, SIZE, SIZE, device=device) > 0.5).float()
    if "nhwc" in mode:
        net, images = (x.to(memory_format=torch.channels_last) for x in (net, images))
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler(device, enabled="amp" in mode)

    def forward(images, masks):
        with torch.autocast(device, torch.float16, enabled="amp" in mode):
            logits = net(images)
        return loss_of(logits.float(), masks)

    if "compile" in mode:
        forward = torch.compile(forward, mode="reduce-overhead" if "graphs" in mode else "default")

    def step():
        adam.zero_grad(set_to_none=True)
        scaler.scale(forward(images, masks)).backward()
        scaler.step(adam)
        scaler.update()

    def timed(steps):
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if on_card:
            torch.cuda.synchronize()
        return (time.perf_counter() - start) * 1e3

    warm_ms = timed(WARM)
    runs = 30 if name == "unext" else 10
    each = sorted(timed(1) for _ in range(runs))
    row_ms = timed(runs) / runs
    print(json.dumps({
        "torch": torch.__version__, "device": torch.cuda.get_device_name() if on_card else f"CPU ({torch.get_num_threads()} threads)",
        "model": name, "mode": ",".join(mode), "batch": batch, "size": SIZE, "step_ms": round(each[runs // 2], 3),
        "min_ms": round(each[0], 3), "row_ms": round(row_ms, 3), "warm_ms": round(warm_ms),
        "peak_bytes": torch.cuda.max_memory_allocated() if on_card else None,
    }), flush=True)


if __name__ == "__main__":
    runs = []
    for word in sys.argv[1:]:
        network, _, modes = word.partition(":")
        modes = modes.split(",") if modes else ["f32"]
        if network not in NETWORKS or not MODES.issuperset(modes):
            sys.exit(f"{word}: NETWORK is one of {', '.join(NETWORKS)}, MODE some of {', '.join(sorted(MODES))}")
        runs.append((network, modes))
    for network, modes in runs:
        run(network, modes)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
