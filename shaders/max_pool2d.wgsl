// Max pooling over 2x2 windows with stride 2, and its gradient. Layout NHWC; an odd last row or column is dropped.
//
//   forward         y[n,oy,ox,c]  = max of x[n,2oy+ky,2ox+kx,c] for ky, kx in {0, 1}
//   backward_input  gx[n,iy,ix,c] = gy of its window if (iy,ix) won there, else 0
//
// One invocation computes one element of its output.
// Ties go to the first element in row order, as in PyTorch. `forward` keeps the winner (0..3)
// so that the gradient gathers instead of scattering: no atomics, the same bits in every run.
// @include flat
// @include element

override WG: u32 = 64u;

struct Params {
    batch: u32,
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    channels: u32,
    accumulate: u32, // 1 if gx is added to what stands there
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read_write> y: array<Element>;
@group(0) @binding(3) var<storage, read_write> winner_out: array<u32>;

@compute @workgroup_size(WG)
fn forward(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.batch * params.out_h * params.out_w * params.channels { return; }
    let c = at % params.channels;
    let pixel = at / params.channels; // (n, oy, ox)
    let ox = pixel % params.out_w;
    let row = pixel / params.out_w; // (n, oy)
    let n = row / params.out_h;
    let oy = row % params.out_h;
    let corner = ((n * params.in_h + 2u * oy) * params.in_w + 2u * ox) * params.channels + c;

    var best = f32(x[corner]);
    var winner = 0u;
    for (var k = 1u; k < 4u; k++) {
        let candidate = f32(x[corner + ((k / 2u) * params.in_w + k % 2u) * params.channels]);
        if candidate > best { best = candidate; winner = k; }
    }
    y[at] = Element(best);
    winner_out[at] = winner;
}

@group(0) @binding(1) var<storage, read> gy: array<Element>;
@group(0) @binding(2) var<storage, read> winner_in: array<u32>;
@group(0) @binding(3) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    if at >= params.batch * params.in_h * params.in_w * params.channels { return; }
    let c = at % params.channels;
    let pixel = at / params.channels; // (n, iy, ix)
    let ix = pixel % params.in_w;
    let row = pixel / params.in_w; // (n, iy)
    let n = row / params.in_h;
    let iy = row % params.in_h;
    var gradient = 0.0;
    if iy < 2u * params.out_h && ix < 2u * params.out_w {
        let window = ((n * params.out_h + iy / 2u) * params.out_w + ix / 2u) * params.channels + c;
        if winner_in[window] == (iy % 2u) * 2u + ix % 2u { gradient = f32(gy[window]); }
    }
    if params.accumulate == 1u { gradient += f32(gx[at]); }
    gx[at] = Element(gradient);
}
